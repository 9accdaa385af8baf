"""Mutants: the framework with one mistake each. Whoever reads the table sees what the machine is able to notice."""
# pyright: reportPrivateUsage=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.dispatch._intake import Intake
from kepm_plugin.dispatch._lane import Lane
from kepm_plugin.dispatch._outcome import Outcomes, key_of
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
    def by_content(lane: Any, received: Received, correlation: object) -> Any:
        return key_of(lane, received, correlation) or (lane.route.filter, received.payload)

    patch.setattr("kepm_plugin.dispatch._delivery.key_of", by_content)


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


@dataclass(frozen=True)
class Mutant:
    """A mistake, and the kind of plugin and broker with which it shows."""

    mutate: Mutation
    journal: bool = True
    keeps: bool = True


MUTANTS = {
    "acknowledged on the connection that is there": Mutant(wrong_connection, journal=False),
    "acknowledged before the commit": Mutant(before_the_commit),
    "acknowledged before the handler": Mutant(before_the_handler, journal=False),
    "never acknowledged": Mutant(never),
    "a repetition of what is in memory alone is acknowledged at once": Mutant(a_repetition_at_once, journal=False),
    "receive raises": Mutant(raising_receive),
    "what waits is handled, and handled again when it is sent again": Mutant(waiting_ones_handled_twice, journal=False),
    "what is sent again is taken for a repetition": Mutant(postponed_ones_still_known, journal=False),
    "done in a commit without the answer": Mutant(done_without_the_answer, keeps=False),
    "an answer is forgotten when it is sent": Mutant(answer_forgotten_when_it_is_sent),
    "a failure leaves no dead letter": Mutant(failures_without_a_letter),
    "deferred is done": Mutant(deferred_ones_are_done),
    "replayed backwards": Mutant(replayed_backwards),
    "what is done stays in the journal": Mutant(finished_ones_stay),
    "what does not fit in memory is skipped": Mutant(spilled_ones_are_skipped, keeps=False),
    "given up after one delivery": Mutant(waiting_counts_as_a_delivery),
    "a repetition by its content": Mutant(dropped_by_content),
    "a repetition of what failed": Mutant(failed_ones_still_known),
    "put off, and passed by others": Mutant(postponed_ones_lose_their_place),
}
