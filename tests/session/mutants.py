"""Mutants: the framework with one mistake each."""
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.dispatch._delivery import Delivery
from kepm_plugin.dispatch._ends import Ends
from kepm_plugin.dispatch._intake import Intake
from kepm_plugin.dispatch._lane import Lane
from kepm_plugin.dispatch._outcome import Outcomes
from kepm_plugin.dispatch._tickets import Tickets
from kepm_plugin.dispatch._window import Seen, Window
from kepm_plugin.link import Session
from kepm_plugin.message import Received
from kepm_plugin.outbox._pipeline import Pipeline
from kepm_plugin.runtime._uplink import Uplink
from kepm_plugin.store import Store

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


def _nothing(*_: object, **__: object) -> None:
    pass


def _yes(_: object) -> bool:
    return True


def _none_are_gone(*_: object) -> tuple[int, int]:
    return 0, 0


def _none_of_them(_: object) -> list[Any]:
    return []


# --- acknowledging ----------------------------------------------------------------------------------------------------


def wrong_connection(patch: Patch) -> None:
    def received(self: Any, batch: Sequence[Received], session: Session) -> None:
        def acknowledge(mids: Sequence[int]) -> None:
            (self._host.session or session).acknowledge(mids)

        self._host.dispatcher.receive(batch, acknowledge)

    patch.setattr(Uplink, "received", received)


def before_the_commit(patch: Patch) -> None:
    take = Intake.take

    def acknowledge_and_take(self: Any, arrived: Any) -> None:
        for each in arrived:
            if each.received.qos:
                each.acknowledge([each.received.mid])
        take(self, [type(each)(each.lane, each.received, _nothing) for each in arrived])

    patch.setattr(Intake, "take", acknowledge_and_take)


def before_the_handler(patch: Patch) -> None:
    put = Lane.put

    def acknowledge_and_put(self: Any, work: Any) -> None:
        put(self, work)
        if work.acknowledge is not None:
            work.acknowledge([work.received.mid])
            work.acknowledge = None

    patch.setattr(Lane, "put", acknowledge_and_put)


def never(patch: Patch) -> None:
    take = Intake.take

    def take_alone(self: Any, arrived: Any) -> None:
        take(self, [type(each)(each.lane, each.received, _nothing) for each in arrived])

    patch.setattr(Intake, "take", take_alone)


def a_repetition_at_once(patch: Patch) -> None:
    patch.setattr(Seen, "safe", property(_yes, _nothing))


# --- receiving --------------------------------------------------------------------------------------------------------


def raising_receive(patch: Patch) -> None:
    receive = Dispatcher.receive

    def receive_and_raise(self: Any, batch: Sequence[Received], acknowledge: Any) -> None:
        receive(self, batch, acknowledge)
        if len(batch) > 1:
            raise ValueError("a bug")

    patch.setattr(Dispatcher, "receive", receive_and_raise)


def waiting_ones_handled_twice(patch: Patch) -> None:
    patch.setattr(Lane, "forget_unacknowledged", _none_of_them)


def postponed_ones_still_known(patch: Patch) -> None:
    new_session = Dispatcher.new_session

    def without_forgetting(self: Any, present: bool) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Window, "forget", _nothing)
            new_session(self, present)

    patch.setattr(Dispatcher, "new_session", without_forgetting)


# --- the end of a message ---------------------------------------------------------------------------------------------


def done_without_the_answer(patch: Patch) -> None:
    finish = Store.finish

    def without_answers(self: Store, id: int, answers: object = ()) -> list[int]:  # noqa: A002
        return finish(self, id)

    patch.setattr(Store, "finish", without_answers)


def written_later_without_the_answer(patch: Patch) -> None:
    write_again = Ends.write_again

    def without_answers(self: Any) -> bool:
        for end in self._unwritten:
            end.answer = None
        return write_again(self)

    patch.setattr(Ends, "write_again", without_answers)


def early_answer_in_memory_alone(patch: Patch) -> None:
    early = Outcomes.answer_early

    def unkept(self: Any, lane: Any, work: Any, *args: Any) -> None:
        number, work.id = work.id, None
        early(self, lane, work, *args)
        work.id = number

    patch.setattr(Outcomes, "answer_early", unkept)


def answer_forgotten_when_it_is_sent(patch: Patch) -> None:
    pump = Pipeline.pump

    def pump_and_forget(self: Any) -> None:
        pump(self)
        for entry in list(self._in_flight):
            if entry.id is not None:
                del self._in_flight[entry]
                self.disk.sent(entry.id)

    patch.setattr(Pipeline, "pump", pump_and_forget)


def failures_without_a_letter(patch: Patch) -> None:
    def finish(self: Store, received: Received, *, id: int | None = None, answers: Any = (), **_: object) -> list[int]:  # noqa: A002
        return self.finish(id or 0, answers)

    patch.setattr(Store, "bury", finish)


def deferred_ones_are_done(patch: Patch) -> None:
    def finish(self: Store, ticket: str, id: int | None, received: Received) -> None:  # noqa: A002
        self.finish(id or 0)

    patch.setattr(Store, "defer", finish)


def another_ticket(patch: Patch) -> None:
    give_out = Tickets.give_out

    def another_one(self: Any, caller: Any) -> str:
        number, caller.work.id = caller.work.id, None
        ticket = give_out(self, caller)
        caller.work.id = number
        return ticket

    patch.setattr(Tickets, "give_out", another_one)


# --- the next run -----------------------------------------------------------------------------------------------------


def replayed_backwards(patch: Patch) -> None:
    unfinished = Store.unfinished

    def backwards(self: Any, after: int = 0) -> list[Any]:
        rows: list[Any] = []
        while part := unfinished(self, rows[-1].id if rows else after):
            rows += part
        return rows[::-1] if after == 0 else []

    patch.setattr(Store, "unfinished", backwards)


def finished_ones_stay(patch: Patch) -> None:
    patch.setattr("kepm_plugin.store.remove", _nothing)
    patch.setattr("kepm_plugin.store.remove_all", _none_are_gone)


def ends_wait_for_others(patch: Patch) -> None:
    def write_some_day(self: Any, number: int, work: Any) -> None:
        self._together.append((number, work))

    patch.setattr(Ends, "write_soon", write_some_day)


def spilled_ones_are_skipped(patch: Patch) -> None:
    enqueue = Dispatcher._enqueue

    def one_too_far(self: Any, lane: Any, row: Any) -> None:
        spilled = lane.spilled_from
        enqueue(self, lane, row)
        if spilled is None and lane.spilled_from is not None:
            lane.spilled_from += 1

    patch.setattr(Dispatcher, "_enqueue", one_too_far)


def waiting_counts_as_a_delivery(patch: Patch) -> None:
    patch.setattr("kepm_plugin.dispatch._dispatcher.DELIVERIES", 1)


# --- the same and not the same ----------------------------------------------------------------------------------------


def dropped_by_content(patch: Patch) -> None:
    deliver = Delivery._deliver

    def by_content(self: Any, lane: Any, work: Any) -> Any:
        received = work.received
        seen, repeated = self._window.enter((lane.route.filter, received.payload), received, 0, equal=True)
        if not repeated:
            work.seen, seen.safe = seen, True
            return deliver(self, lane, work)
        self._outcomes.repeated(lane, work, seen, 0)
        return None

    patch.setattr(Delivery, "_deliver", by_content)


def failed_ones_still_known(patch: Patch) -> None:
    bury = Outcomes._bury

    def without_forgetting(self: Any, *args: Any, **options: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Window, "forget", _nothing)
            bury(self, *args, **options)

    patch.setattr(Outcomes, "_bury", without_forgetting)


def postponed_ones_lose_their_place(patch: Patch) -> None:
    postpone = Lane.postpone

    def without_blocking(self: Any, work: Any) -> None:
        postpone(self, work)
        self._blocked = False

    patch.setattr(Lane, "postpone", without_blocking)
