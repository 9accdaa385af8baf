"""The dispatcher: takes what the session read, gives it to the journal, the acknowledgement and the lanes."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from kepm_plugin.contract import Contract
from kepm_plugin.errors import BadPayload, BadTopic, PayloadMismatch, StoreError
from kepm_plugin.message import (
    Decoded,
    Message,
    Publication,
    Received,
    command_decoder,
    correlation_of,
    decoder,
    encode_json,
)
from kepm_plugin.plugin import HandlerRoute
from kepm_plugin.store import Journalled, Store
from kepm_plugin.topics import Router, covers, matches

from ._call import Call, Failure, TimedOut
from ._lane import Lane, Work

log = logging.getLogger("kepm_plugin.dispatch")

Direct = Callable[[Received], None]
Acknowledge = Callable[[Sequence[int]], None]
Answer = Callable[[Publication, int | None], None]

BURST = 0.005
"""Seconds before the loop gets a turn: a handler that never waits must not starve the reader."""

REFILL = 200
"""Messages that are read back from the journal at a time."""


@dataclass(slots=True)
class Counters:
    """What became of the messages since start."""

    handled: int = 0
    rejected: int = 0
    failed: int = 0
    timed_out: int = 0
    mismatched: int = 0
    unrouted: int = 0
    dropped: int = 0
    """Given up because a lane was full: QoS 0, or no journal."""
    refused: int = 0
    """Not acknowledged because the journal could not take them."""

    def report(self) -> dict[str, int]:
        """Return the counters by name, in JSON's casing."""
        return {("timedOut" if name == "timed_out" else name): value for name, value in asdict(self).items()}


class Dispatcher:
    """Routes messages to handlers.

    `receive` is called on the loop with all that was read in one drain. QoS 1 and 2 go into the journal in one commit
    and are acknowledged then; without a journal the acknowledgement comes after the handler.
    """

    def __init__(
        self,
        plugin: Any,
        routes: Iterable[HandlerRoute],
        direct: Mapping[str, Direct],
        store: Store,
        answer: Answer,
        contract: Contract,
    ) -> None:
        self.counters = Counters()
        self.degraded: str | None = None
        """Why messages are not taken, None while they are."""
        self._plugin, self._store, self._answer, self._contract = plugin, store, answer, contract
        self._journal = plugin.journal
        routes = list(routes)
        self._responses = [route.response.filter(plugin.id) for route in routes if route.response is not None]
        self._lanes = [self._lane(route) for route in routes]
        entries: list[tuple[str, Lane | Direct]] = [(lane.route.filter, lane) for lane in self._lanes]
        self._router: Router[Lane | Direct] = Router(entries + list(direct.items()))
        self._taps: list[tuple[str, Direct]] = []
        self._burst_since = time.monotonic()
        self._closed = False

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
        """Take what was read in one drain. Never blocks, never raises."""
        if self._closed:
            return
        done: list[int] = []
        journal: list[tuple[Lane, Received]] = []
        for received in batch:
            for topic_filter, function in self._taps:
                if matches(topic_filter, received.topic):
                    function(received)
            target = self._router.find(received.topic)
            if isinstance(target, Lane) and not (received.retained and target.route.spec.handler.retained == "skip"):
                if received.qos and self._journal:
                    journal.append((target, received))
                    continue
                if self._offer(target, received, acknowledge):
                    continue
            elif target is None:
                self.counters.unrouted += not self._taps
            elif not isinstance(target, Lane):
                target(received)
            if received.mid:
                done.append(received.mid)
        done += self._journalled(journal)
        if done:
            acknowledge(done)

    def _offer(self, lane: Lane, received: Received, acknowledge: Acknowledge) -> bool:
        """Put a message that is not journalled on its lane; tell whether its acknowledgement must wait."""
        if received.qos:
            if lane.full:
                self.counters.refused += 1
                self._degrade(f"{lane.route.spec.name} is behind, and without a journal there is no room for more")
            else:
                lane.put(Work(received, acknowledge=acknowledge))
            return True
        if lane.full:
            self.counters.dropped += 1
            lane.drop_oldest()
        lane.put(Work(received))
        return False

    def _journalled(self, entries: list[tuple[Lane, Received]]) -> list[int]:
        if not entries:
            return []
        try:
            rows = self._store.journal([received for _, received in entries])
        except StoreError as exc:
            self.counters.refused += len(entries)
            self._degrade(str(exc))
            return []
        self.degraded = None
        for (lane, _), row in zip(entries, rows, strict=True):
            self._enqueue(lane, row)
        return [received.mid for _, received in entries if received.mid]

    def _enqueue(self, lane: Lane, row: Journalled) -> None:
        if lane.spilled_from is None and not lane.full:
            lane.put(Work(row.received, row.delivery, row.id))
        elif lane.spilled_from is None:
            lane.spilled_from = row.id

    def _degrade(self, reason: str) -> None:
        if self.degraded is None:
            log.error("messages.refused", extra={"reason": reason})
        self.degraded = reason

    def replay(self) -> int:
        """Queue what an earlier run received and did not finish; returns how much that was."""
        rows = self._store.unfinished() if self._journal else []
        for row in rows:
            lane = self._router.find(row.received.topic)
            if isinstance(lane, Lane):
                self._enqueue(lane, row)
            else:
                self._store.bury(
                    row.received,
                    reason="no handler",
                    details="the plugin has no handler for this topic any more",
                    id=row.id,
                )
        if rows:
            log.warning("messages.replayed", extra={"count": len(rows)})
        return len(rows)

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the lanes until `close`; ends when the last running call has ended."""
        async with anyio.create_task_group() as tasks:
            for lane in self._lanes:
                for number in range(lane.slots):
                    tasks.start_soon(self._work, lane, name=f"kepm.lane.{lane.route.spec.name}[{number}]")
            task_status.started()

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
            if lane.spilled_from is not None and len(lane) < REFILL:
                self._refill(lane, lane.spilled_from)
            if time.monotonic() - self._burst_since > BURST:
                await anyio.lowlevel.checkpoint()
                self._burst_since = time.monotonic()

    def _refill(self, lane: Lane, first: int) -> None:
        before = len(lane)
        while len(lane) == before and lane.spilled_from is not None:
            rows = self._store.read_from(first, REFILL)
            for row in rows:
                if self._router.find(row.received.topic) is lane:
                    lane.put(Work(row.received, row.delivery, row.id))
            first = rows[-1].id + 1 if rows else first
            lane.spilled_from = first if len(rows) == REFILL else None

    async def _handle(self, lane: Lane, work: Work) -> None:
        received = work.received
        try:
            decoded: Any = lane.decode(received.payload)
        except PayloadMismatch as exc:
            self.counters.mismatched += 1
            log.warning("message.mismatched", extra=self._where(lane, received) | {"reason": exc.reason})
            self._bury(lane, work, "payload mismatch", exc.reason, answer=exc.reason)
            return
        value, correlation = decoded if isinstance(decoded, Decoded) else (decoded, None)
        message = Message(
            payload=value,
            topic=received.topic,
            params=lane.params(received.topic),
            correlation_id=_identity(correlation, received),
            delivery=work.delivery,
            retained=received.retained,
            qos=received.qos,
            received_at=received.received_at,
            properties=received.properties,
        )
        started = time.monotonic()
        await lane.call(
            message, lambda outcome: self._ended(lane, work, correlation, outcome, time.monotonic() - started)
        )

    def _ended(self, lane: Lane, work: Work, correlation: object, outcome: object, seconds: float) -> None:
        where = self._where(lane, work.received) | {"seconds": round(seconds, 3)}
        if isinstance(outcome, TimedOut):
            self.counters.timed_out += 1
            reason = f"timed out after {outcome.seconds:g} s"
            log.error("handler.timed_out", extra=where)
            self._bury(lane, work, "timeout", reason, answer=reason, correlation=correlation)
        elif isinstance(outcome, Failure) and outcome.rejected:
            self.counters.rejected += 1
            log.info("handler.rejected", extra=where | {"reason": str(outcome.error)})
            self._finish(lane, work, self._no(correlation, str(outcome.error)))
        elif isinstance(outcome, Failure):
            self._failed(lane, work, correlation, outcome.error, where)
        elif lane.route.response is None:
            self.counters.handled += 1
            log.debug("handler.done", extra=where)
            self._finish(lane, work, None)
        else:
            try:
                answer = encode_json(self._contract.answer_ok(_echoed(correlation, work.received), outcome))
            except BadPayload as exc:
                self._failed(lane, work, correlation, exc, where)
                return
            self.counters.handled += 1
            log.info("handler.done", extra=where)
            self._finish(lane, work, answer)

    def _failed(self, lane: Lane, work: Work, correlation: object, error: Exception, where: dict[str, object]) -> None:
        self.counters.failed += 1
        log.error("handler.failed", exc_info=error, extra=where)
        details = "".join(traceback.format_exception(error))
        self._bury(lane, work, "failed", details, answer="internal error", correlation=correlation)

    def _no(self, correlation: object, error: str) -> bytes:
        return encode_json(self._contract.answer_error(correlation, error))

    def _bury(
        self, lane: Lane, work: Work, reason: str, details: str, *, answer: str, correlation: object = None
    ) -> None:
        if correlation is None:
            correlation = correlation_of(work.received.payload, self._contract.correlation_field)
        payload = self._no(_echoed(correlation, work.received), answer)
        try:
            publication = self._response(lane, work.received, payload)
            kept = self._store.bury(
                work.received, reason=reason, details=details, id=work.id, answers=[publication] if publication else []
            )
        except StoreError as exc:
            self._degrade(str(exc))
            return
        self._release(work, publication, kept)

    def _finish(self, lane: Lane, work: Work, payload: bytes | None) -> None:
        publication = None if payload is None else self._response(lane, work.received, payload)
        kept: list[int] = []
        if work.id is not None:
            try:
                kept = self._store.finish(work.id, [publication] if publication else [])
            except StoreError as exc:
                self._degrade(str(exc))
        self._release(work, publication, kept)

    def _release(self, work: Work, publication: Publication | None, kept: Sequence[int]) -> None:
        if publication is not None:
            self._answer(publication, kept[0] if kept else None)
        if work.acknowledge is not None:
            work.acknowledge([work.received.mid])

    def _response(self, lane: Lane, received: Received, payload: bytes) -> Publication | None:
        if lane.route.response is None:
            return None
        wanted = received.response_topic
        # MQTT 5.0, section 4.10. Only below our own `Responses`: a caller must not choose where else we publish.
        if wanted is None or set("+#").intersection(wanted) or not any(covers(one, wanted) for one in self._responses):
            try:
                wanted = lane.route.response.topic(self._plugin.id, lane.params(received.topic))
            except BadTopic as exc:  # a level of the command's topic was empty
                log.warning("answer.impossible", extra=self._where(lane, received) | {"reason": exc.reason})
                return None
        return Publication(wanted, payload, correlation_data=received.correlation_data)

    def _where(self, lane: Lane, received: Received) -> dict[str, object]:
        return {"topic": received.topic, "handler": lane.route.spec.name}


def _identity(correlation: object, received: Received) -> str | None:
    if correlation is None:
        return None if received.correlation_data is None else received.correlation_data.decode(errors="replace")
    return correlation if isinstance(correlation, str) else encode_json(correlation).decode()


def _echoed(correlation: object, received: Received) -> object:
    return _identity(None, received) if correlation is None else correlation
