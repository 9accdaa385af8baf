"""The dispatcher: takes what the session read, gives it to the journal, the acknowledgement and the lanes."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from kepm_plugin.contract import Contract
from kepm_plugin.errors import StoreError
from kepm_plugin.eventloop import bare_task_group
from kepm_plugin.message import Decoded, Message, Received, command_decoder, decoder
from kepm_plugin.plugin import HandlerRoute, holding_settings
from kepm_plugin.store import PART, Journalled, Store
from kepm_plugin.topics import Router, matches

from ._call import Call, Failure, attempted
from ._lane import Lane, Work, size_of
from ._outcome import Answer, Counters, Outcomes, Redact, Trouble, identity

log = logging.getLogger("kepm_plugin.dispatch")

Direct = Callable[[Received], None]
Acknowledge = Callable[[Sequence[int]], None]

BURST = 0.005
"""Seconds before the loop gets a turn: a handler that never waits must not starve the reader."""

HELD = 1_000
"""Messages that wait in memory, unacknowledged, while the journal cannot be written."""

HELD_BYTES = 16 * 2**20
"""Bytes of their topics and payloads, at most."""

DELIVERIES = 3
"""Deliveries of one message that may end with the process; after them it is a dead letter."""

ALONE = 60.0
"""Seconds that a message whose last delivery ended with the process waits for others of its kind."""

RETRY = 1.0
"""Seconds between two attempts to write them: a broker does not send them again on the same connection."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    lane: Lane
    received: Received
    acknowledge: Acknowledge


class Dispatcher:
    """Routes messages to handlers.

    `receive` is called on the loop with all that was read in one drain. QoS 1 and 2 go into the journal in one commit
    and are acknowledged then; without a journal the acknowledgement comes after the handler.

    A message may end the process: by code that is not Python, by `os._exit`, by a loop that never gives up the thread
    and is cut off. The next run handles it again, but not for ever. Of a message that an earlier run left, each
    delivery is counted in the journal before it begins, and counted out where it is only cut short by an orderly stop.
    (In the run that received it, nothing is counted: that would cost each message a commit. So one that merely waited
    has one delivery less.) After `DELIVERIES` it becomes the dead letter `crashed`, and a command is answered with no.
    A message whose counted delivery ended with the process is handled while no other such message is, so that what
    only ran beside the culprit comes through.
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
    ) -> None:
        self._plugin, self._store, self._contract = plugin, store, contract
        self._journal = plugin.journal
        routes = list(routes)
        responses = [route.response.filter(plugin.id) for route in routes if route.response is not None]
        self._troubles: dict[str, str] = {}
        self._report = trouble
        self._outcomes = Outcomes(plugin.id, responses, store, answer, contract, self._trouble, redact)
        self._lanes = [self._lane(route) for route in routes]
        entries: list[tuple[str, Lane | Direct]] = [(lane.route.filter, lane) for lane in self._lanes]
        self._router: Router[Lane | Direct] = Router(entries + list(direct.items()))
        self._taps: list[tuple[str, Direct]] = []
        self._held: list[_Arrived] = []
        self._stuck = anyio.Event()
        self._burst_since = time.monotonic()
        self._closed = False
        self._alone = anyio.Lock()

    @property
    def counters(self) -> Counters:
        """What became of the messages since start."""
        return self._outcomes.counters

    def _lane(self, route: HandlerRoute) -> Lane:
        spec = route.spec
        handler: Any = spec.handler(self._plugin)
        call = Call(handler.handle, is_async=spec.is_async, timeout=spec.handler.timeout)
        decode: Callable[[bytes], Any] = (
            decoder(route.payload_type)
            if spec.command is None
            else command_decoder(route.payload_type, self._contract.correlation_field)
        )
        return Lane(route, call, decode, self._plugin.id)

    def tap(self, topic_filter: str, function: Direct) -> Callable[[], None]:
        """Show messages of a filter to a function too; returns what ends that. The function must not raise."""
        entry = (topic_filter, function)
        self._taps.append(entry)
        return partial(self._taps.remove, entry)

    def receive(self, batch: Sequence[Received], acknowledge: Acknowledge) -> None:
        """Take what was read in one drain. Never blocks, never raises.

        Once closed, what is for handlers goes into the journal for the next run; what cannot is not acknowledged, and
        dropped at QoS 0. What running handlers wait for still comes.
        """
        done: list[int] = []
        arrived: list[_Arrived] = []
        for received in batch:
            tapped = False
            for topic_filter, function in self._taps:
                if matches(topic_filter, received.topic):
                    function(received)
                    tapped = True
            target = self._router.find(received.topic)
            if isinstance(target, Lane):
                if not (received.retained and target.route.spec.handler.retained == "skip"):
                    if received.qos and self._journal:
                        arrived.append(_Arrived(target, received, acknowledge))
                        continue
                    if self._offer(target, received, acknowledge):
                        continue
            elif target is not None:
                target(received)
            elif not tapped:
                self.counters.unrouted += 1
            if received.mid:
                done.append(received.mid)
        if arrived:
            self._take(arrived)
        if done:
            acknowledge(done)

    def _offer(self, lane: Lane, received: Received, acknowledge: Acknowledge) -> bool:
        """Put a message that is not journalled on its lane; tell whether its acknowledgement must wait."""
        if not received.qos:
            if lane.full or self._closed:
                self.counters.dropped += 1
            else:
                lane.put(Work(received))
            return False
        if self._closed:
            self.counters.refused += 1
        elif lane.full:
            self.counters.refused += 1
            lane.overflowed = True
            self._trouble(lane.route.spec.name, f"{lane.route.spec.name} is behind, and there is no journal")
        else:
            lane.put(Work(received, acknowledge=acknowledge))
        return True

    def _take(self, arrived: list[_Arrived]) -> None:
        """Journal messages, acknowledge them and put them on their lanes; behind those that are held, if any."""
        if self._held:
            self._hold(self._held + arrived)
            return
        try:
            rows = self._store.journal([each.received for each in arrived])
        except StoreError as exc:
            self._hold(arrived)
            self._trouble("journal", str(exc))
            return
        self._trouble("journal", None)
        for each, row in zip(arrived, rows, strict=True):
            self._enqueue(each.lane, row)
        for acknowledge, group in groupby(arrived, attrgetter("acknowledge")):
            acknowledge([each.received.mid for each in group])

    def _hold(self, arrived: list[_Arrived]) -> None:
        sizes = accumulate(size_of(each.received) for each in arrived)
        self._held = [each for each, size in zip(arrived[:HELD], sizes, strict=False) if size <= HELD_BYTES]
        self.counters.refused += len(arrived) - len(self._held)
        self._stuck.set()

    async def _write_again(self) -> None:
        """Try again and again to journal what is held, and to write how messages ended."""
        while True:
            await self._stuck.wait()
            await anyio.sleep(RETRY)
            self._stuck = anyio.Event()
            held, self._held = self._held, []
            if held:
                self._take(held)
            if not self._outcomes.write_again():
                self._stuck.set()

    def new_session(self, present: bool) -> None:
        """Prepare for what a new session delivers; `present` says that the broker had kept the earlier one.

        It then sends again, in order, whatever was not acknowledged (MQTT 5.0, section 4.4): what still waits here of
        that is forgotten, so that nothing is handled twice or out of order. What is running is handled twice.
        """
        if present:
            self._held = []
            for lane in self._lanes:
                lane.forget_unacknowledged()

    def _enqueue(self, lane: Lane, row: Journalled) -> None:
        if self._closed:
            return
        if lane.spilled_from is None and not lane.full:
            lane.put(Work(row.received, row.delivery, row.id))
        elif lane.spilled_from is None:
            lane.spilled_from = row.id

    def _trouble(self, source: str, reason: str | None) -> None:
        if source == "store" and reason is not None:
            self._stuck.set()
        if reason is None:
            if self._troubles.pop(source, None) is not None:
                self._report(source, None)
            return
        if source not in self._troubles:
            log.error("messages.trouble", extra={"reason": reason})
        if self._troubles.get(source) != reason:
            self._troubles[source] = reason
            self._report(source, reason)

    def replay(self) -> int:
        """Queue what an earlier run received and did not finish; returns how much that was.

        Raises:
            StoreError: The journal cannot be read.
        """
        count, last = 0, 0
        while self._journal and (rows := self._store.unfinished(after=last)):
            for row in rows:
                lane = self._router.find(row.received.topic)
                work = Work(row.received, row.delivery, row.id)
                if not isinstance(lane, Lane):
                    self._outcomes.orphaned(work)
                elif row.delivery > DELIVERIES:
                    self._outcomes.crashed(lane, work)
                else:
                    self._enqueue(lane, row)
            count, last = count + len(rows), rows[-1].id
        if count:
            log.warning("messages.replayed", extra={"count": count})
        return count

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the lanes until `close`; ends when the last running call has ended.

        Raises:
            StoreError: The journal cannot be read back.
        """
        try:
            async with bare_task_group() as outer:
                outer.start_soon(self._write_again, name="kepm.journal")
                async with bare_task_group() as workers:
                    for lane in self._lanes:
                        for number in range(lane.slots):
                            workers.start_soon(self._work, lane, name=f"kepm.lane.{lane.route.spec.name}[{number}]")
                    task_status.started()
                outer.cancel_scope.cancel()
        finally:
            self._outcomes.write_again()

    def close(self) -> None:
        """Take nothing more; what waits stays in the journal, or unacknowledged."""
        self._closed = True
        for lane in self._lanes:
            lane.close()

    def busy(self) -> list[str]:
        """Return the names of the handlers that are running."""
        return [lane.route.spec.name for lane in self._lanes if lane.running]

    async def _work(self, lane: Lane) -> None:
        while (work := await lane.next()) is not None:
            lane.running += 1
            try:
                await self._handle(lane, work)
            finally:
                lane.running -= 1
                lane.done(work)
            if lane.low:
                if lane.spilled_from is not None:
                    self._refill(lane, lane.spilled_from)
                if lane.overflowed:
                    lane.overflowed = False
                    self._trouble(lane.route.spec.name, None)
            if time.monotonic() - self._burst_since > BURST:
                await anyio.lowlevel.checkpoint()
                self._burst_since = time.monotonic()

    def _refill(self, lane: Lane, first: int) -> None:
        before = len(lane)
        while len(lane) == before and lane.spilled_from is not None:
            rows = self._store.read_from(first, PART)
            for row in rows:
                # What is given up and could not be buried at the start is not handled either.
                if self._router.find(row.received.topic) is lane and row.delivery <= DELIVERIES:
                    lane.put(Work(row.received, row.delivery, row.id))
            lane.spilled_from = rows[-1].id + 1 if rows else None
            first = lane.spilled_from or first

    async def _handle(self, lane: Lane, work: Work) -> None:
        if work.delivery == 1 or work.id is None:
            await self._deliver(lane, work)
            return
        alone = False
        if work.delivery > 2:
            with anyio.move_on_after(ALONE):
                await self._alone.acquire()
                alone = True
        try:
            if not self._closed:
                await self._deliver_again(lane, work, work.id)
        finally:
            if alone:
                self._alone.release()

    async def _deliver_again(self, lane: Lane, work: Work, number: int) -> None:
        self._count(number, work.delivery)
        try:
            await self._deliver(lane, work)
        except anyio.get_cancelled_exc_class():
            self._count(number, work.delivery - 1)
            raise

    def _count(self, number: int, delivery: int) -> None:
        try:
            self._store.begin(number, delivery)
        except StoreError as exc:  # Handled all the same: that is promised, the count is a precaution.
            self._trouble("store", str(exc))

    async def _deliver(self, lane: Lane, work: Work) -> None:
        received = work.received
        # A payload type may have code of its author, who may raise anything.
        decoded: Any = attempted(lane.decode, received.payload)
        if isinstance(decoded, Failure):
            self._outcomes.undecoded(lane, work, decoded)
            return
        value, correlation = decoded if isinstance(decoded, Decoded) else (decoded, None)
        message = Message(
            payload=value,
            topic=received.topic,
            params=lane.params(received.topic),
            correlation_id=identity(correlation, received),
            delivery=work.delivery,
            retained=received.retained,
            qos=received.qos,
            received_at=received.received_at,
            properties=received.properties,
        )
        started = time.monotonic()
        with holding_settings(self._plugin):
            await lane.call(
                message,
                lambda outcome: self._outcomes.ended(lane, work, correlation, outcome, time.monotonic() - started),
            )
