"""The dispatcher: takes what the session read, gives it to the journal, the acknowledgement and the lanes."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from kepm_plugin.contract import Contract
from kepm_plugin.errors import StoreError
from kepm_plugin.eventloop import bare_task_group, loop_clock, run_soon_on_loop
from kepm_plugin.message import Publication, Received, command_decoder, decoder
from kepm_plugin.plugin import HandlerRoute
from kepm_plugin.store import PART, Journalled, Store
from kepm_plugin.topics import Router, matches

from ._call import calling
from ._counters import Counters
from ._delivery import DELIVERIES, Delivery
from ._ends import Answer, Trouble
from ._intake import Acknowledge, Arrived, Intake
from ._lane import Lane, Room
from ._later import Later, remaining
from ._outcome import Outcomes, Redact
from ._pressure import Pressure, Troubles
from ._tickets import Send, Tickets
from ._window import Window
from ._work import Work, size_of
from ._workers import Workers

log = logging.getLogger("kepm_plugin.dispatch")

Direct = Callable[[Received], None]

RETRY = 1.0
"""Seconds between two attempts to write what could not be: a broker does not send it again on the same connection."""

SWEEP = 600.0
"""Seconds between two looks for tickets that nobody has answered for too long."""


class Dispatcher:
    """Routes messages to handlers.

    `receive` is called on the loop with all that was read in one drain. QoS 1 and 2 go into the journal in one commit
    and are acknowledged then. Without a journal the acknowledgement comes after the handler; where a lane is full then,
    `pause(True)` asks for nothing more to be read, until `pause(False)`.
    """

    def __init__(
        self,
        plugin: Any,
        routes: Iterable[HandlerRoute],
        direct: Mapping[str, Direct],
        store: Store,
        answer: Answer,
        contract: Contract,
        trouble: Trouble,
        redact: Redact,
        *,
        send: Send,
        pause: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self._plugin, self._store, self._contract = plugin, store, contract
        self._journal = plugin.journal
        routes = list(routes)
        responses = [route.response.filter(plugin.id) for route in routes if route.response is not None]
        self._troubles = Troubles(trouble)
        run_soon, window = run_soon_on_loop(), Window(loop_clock())
        self._window, self._room = window, Room()
        self.deliveries = DELIVERIES
        """Deliveries of one message that may end with the process."""

        def send_soon(publication: Publication) -> None:
            run_soon(lambda: answer(publication, None, None))

        self._outcomes = Outcomes(plugin.id, responses, store, answer, contract, self._trouble, redact, window)
        self._tickets = Tickets(store, self._outcomes, contract, send, send_soon)
        self._delivery = Delivery(
            plugin, store, self._outcomes, self._tickets, window, self._trouble, lambda: self._closed
        )
        self._later, self._workers = Later(), Workers(self._handle)
        self._decoders: dict[tuple[int, bool], Callable[[bytes], Any]] = {}
        """Of each type, which the routes keep alive, one for all handlers: many small ones are far apart in memory."""
        self._lanes = [self._lane(route) for route in routes]
        entries: list[tuple[str, Lane | Direct]] = [(lane.route.filter, lane) for lane in self._lanes]
        self._router: Router[Lane | Direct] = Router(entries + list(direct.items()))
        self._intake = Intake(store, self._enqueue, self._put_or_drop, self.counters, self._trouble)
        self._taps: list[tuple[str, Direct]] = []
        self._pressure = Pressure(pause, self._trouble)
        self._stuck = anyio.Event()
        self._closed = False

    @property
    def counters(self) -> Counters:
        """What became of the messages since start."""
        return self._outcomes.counters

    @property
    def overloaded(self) -> bool:
        """Whether nothing more is to be read for now; a new session has to be told."""
        return bool(self._pressure)

    def _lane(self, route: HandlerRoute) -> Lane:
        spec = route.spec
        handler: Any = spec.handler(self._plugin)
        call = calling(handler.handle, is_async=spec.is_async, timeout=spec.handler.timeout)
        kind = id(route.payload_type), spec.command is None
        if kind not in self._decoders:
            self._decoders[kind] = (
                decoder(route.payload_type)
                if spec.command is None
                else command_decoder(route.payload_type, self._contract.correlation_field)
            )
        return Lane(route, handler.handle, call, self._decoders[kind], self._plugin.id, self._room, self._workers.call)

    def bound(self, messages: int, size: int) -> None:
        """Keep so many messages, and bytes of them, for each handler in memory from now on."""
        self._room.bound(messages, size)
        for lane in self._lanes:
            self._refill_if_low(lane)
            self._pressure.shrunk(lane)

    def remember(self, entries: int, seconds: float) -> None:
        """Remember so many identities from now on, each for so long."""
        self._window.entries, self._window.seconds = entries, seconds

    def tap(self, topic_filter: str, function: Direct) -> Callable[[], None]:
        """Show messages of a filter to a function too; returns what ends that. The function must not raise."""
        entry = (topic_filter, function)
        self._taps.append(entry)
        return partial(self._taps.remove, entry)

    # --- from the session ---------------------------------------------------------------------------------------------

    def receive(self, batch: Sequence[Received], acknowledge: Acknowledge) -> None:
        """Take what was read in one drain. Never blocks, never raises.

        Once closed, what is for handlers goes into the journal for the next run; what cannot is not acknowledged, and
        dropped at QoS 0. What running handlers wait for still comes.
        """
        done: list[int] = []
        arrived: list[Arrived] = []
        for received in batch:
            tapped = False
            for topic_filter, function in self._taps:
                if matches(topic_filter, received.topic):
                    function(received)
                    tapped = True
            target = self._router.find(received.topic)
            if isinstance(target, Lane):
                if not (received.retained and target.skips_retained):
                    if self._journal and (received.qos or arrived):
                        arrived.append(Arrived(target, received, acknowledge))
                    elif received.qos:
                        self._put_unjournalled(target, received, acknowledge)
                    else:
                        self._put_or_drop(target, received)
                    continue
            elif target is not None:
                target(received)
            elif not tapped:
                self.counters.unrouted += 1
            if received.mid:
                done.append(received.mid)
        if arrived:
            self._intake.take(arrived)
        if done:
            acknowledge(done)

    def _put_or_drop(self, lane: Lane, received: Received) -> None:
        self.counters.dropped += 1 if self._closed else lane.put_or_drop(received)

    def _put_unjournalled(self, lane: Lane, received: Received, acknowledge: Acknowledge) -> None:
        """Put a message on its lane that is acknowledged after its handler.

        What was read before reading stops goes beyond the lane's bound, up to twice as much.
        """
        if self._closed or len(lane) >= 2 * self._room.messages or lane.bytes >= 2 * self._room.bytes:
            self.counters.refused += 1
            return
        lane.put(Work(received, size_of(received), acknowledge=acknowledge))
        self._pressure.grown(lane)

    def new_session(self, present: bool) -> None:
        """Prepare for what a new session delivers; `present` says that the broker had kept the earlier one.

        It then sends again, in order, whatever was not acknowledged (MQTT 5.0, section 4.4): what still waits here of
        that is forgotten, so that nothing is handled twice or out of order. What is running is handled twice.
        """
        if present:
            self._intake.forget()
            for lane in self._lanes:
                for work in lane.forget_unacknowledged():
                    self._window.forget(work.seen)
                self._pressure.shrunk(lane)

    def _enqueue(self, lane: Lane, row: Journalled) -> None:
        if self._closed:
            return
        if lane.spilled_from is None and not lane.full:
            lane.put(_work(row))
        elif lane.spilled_from is None:
            lane.spilled_from = row.id

    def _trouble(self, source: str, reason: str | None) -> None:
        if source in ("store", "journal") and reason is not None:
            self._stuck.set()
        self._troubles.tell(source, reason)

    # --- from earlier runs --------------------------------------------------------------------------------------------

    def replay(self) -> int:
        """Queue what an earlier run received and did not finish; returns how much that was.

        Raises:
            StoreError: The journal cannot be read.
        """
        count, last = 0, 0
        while self._journal and (rows := self._store.unfinished(after=last)):
            for row in rows:
                lane = self._router.find(row.received.topic)
                if not isinstance(lane, Lane):
                    self._outcomes.orphaned(_work(row))
                elif row.delivery > self.deliveries:
                    self._outcomes.crashed(lane, _work(row))
                else:
                    self._enqueue(lane, row)
            count, last = count + len(rows), rows[-1].id
        if count:
            log.warning("messages.replayed", extra={"count": count})
        return count

    # --- to the handlers ----------------------------------------------------------------------------------------------

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the lanes until `close`; ends when the last running call has ended."""
        try:
            async with bare_task_group() as outer:
                outer.start_soon(self._write_again, name="kepm.journal")
                outer.start_soon(self._later.run, name="kepm.later")
                outer.start_soon(self._sweep, name="kepm.tickets")
                await self._workers.serve(self._lanes, task_status=task_status)
                outer.cancel_scope.cancel()
        finally:
            self._outcomes.ends.write_together()
            self._outcomes.ends.write_again()

    def close(self) -> None:
        """Take nothing more; what waits stays in the journal, or unacknowledged; at QoS 0 it is dropped."""
        if not self._closed:
            self._closed = True
            for lane in self._lanes:
                self.counters.dropped += lane.close()
            self._workers.close()

    def busy(self) -> list[str]:
        """Return the names of the handlers that are running."""
        return [lane.route.spec.name for lane in self._lanes if lane.running]

    def answer(self, ticket: str, result: object) -> None:
        """Answer a command whose handler left that for later.

        Raises:
            UnknownTicket: Nobody waits for it.
            BadPayload: JSON cannot carry the result.
            StoreError: The tickets cannot be read.
        """
        self._tickets.answer(ticket, result, self._command_of)

    def _command_of(self, topic: str) -> Lane | None:
        found = self._router.find(topic)
        return found if isinstance(found, Lane) and found.route.response is not None else None

    async def _write_again(self) -> None:
        """Try again and again to journal what is held, and to write how messages ended."""
        while True:
            await self._stuck.wait()
            await anyio.sleep(RETRY)
            self._stuck = anyio.Event()
            for lane in self._lanes:
                self._refill_if_low(lane)
            journalled = self._intake.write_again()
            if not (self._outcomes.ends.write_again() and journalled):
                self._stuck.set()

    async def _sweep(self) -> None:
        """Give up, now and then, the tickets that nobody answers."""
        while True:
            try:
                expired = self._store.expired()
            except StoreError as exc:
                self._trouble("store", str(exc))
                expired = []
            for number, received in expired:
                self._outcomes.too_old(self._command_of(received.topic), Work(received, 0, id=number))
            await anyio.sleep(RETRY if len(expired) == PART else SWEEP)

    async def _handle(self, lane: Lane, work: Work) -> None:
        if work.due is not None:
            if (seconds := remaining(work)) > 0:
                self._later.postpone(lane, work, seconds)
                return
            work.due = None
        lane.running += 1
        postponed = False
        try:
            if (rest := self._delivery.handle(lane, work)) is not None:
                await rest
            postponed = work.due is not None
        finally:
            lane.running -= 1
            if not postponed:
                lane.done(work)
        if postponed:
            self._later.postpone(lane, work, remaining(work))
            self.counters.dropped += self._closed and not work.received.qos
        if lane.low:
            self._refill_if_low(lane)
            self._pressure.shrunk(lane)

    def _refill_if_low(self, lane: Lane) -> None:
        if lane.low and lane.spilled_from is not None:
            try:
                self._refill(lane, lane.spilled_from)
            except StoreError as exc:  # It is tried again with whatever else the disk owes us.
                self._trouble("store", str(exc))

    def _refill(self, lane: Lane, first: int) -> None:
        before = len(lane)
        while len(lane) == before and lane.spilled_from is not None:
            rows = self._store.read_from(first, min(PART, self._room.messages))
            for row in rows:
                # What is given up and could not be buried at the start is not handled either.
                if self._router.find(row.received.topic) is lane and row.delivery <= self.deliveries:
                    lane.put(_work(row))
            lane.spilled_from = rows[-1].id + 1 if rows else None
            first = lane.spilled_from or first

    # --- from commands in another process -----------------------------------------------------------------------------

    def look_again(self) -> int:
        """Queue the dead letters that a command has put back into the journal; returns how many there were."""
        count = 0
        try:
            while not self._closed and (rows := self._store.added_by_others()):
                for row in rows:
                    self._take_back(row)
                count += len(rows)
        except StoreError as exc:
            self._trouble("replay", str(exc))
        else:
            self._trouble("replay", None)
        if count:
            log.warning("messages.replayed", extra={"count": count})
        return count

    def _take_back(self, row: Journalled) -> None:
        lane = self._router.find(row.received.topic)
        if not isinstance(lane, Lane):
            self._outcomes.orphaned(_work(row))
        elif lane.spilled_from is None or row.id < lane.spilled_from:
            # Full or not: what is read back later begins behind what is in memory, and that may have higher numbers.
            # There are no more of these than dead letters are kept.
            lane.put(_work(row))


def _work(row: Journalled) -> Work:
    received = row.received
    return Work(received, size_of(received), row.delivery, row.id, attempts=row.attempts, due=row.due)
