"""What comes of a handler's call: its answer, its dead letter, its acknowledgement, one line in the log."""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kepm_plugin.contract import Contract
from kepm_plugin.errors import BadTopic, PayloadMismatch, StoreError
from kepm_plugin.message import Publication, Received, correlation_of, encode_json
from kepm_plugin.store import Store
from kepm_plugin.topics import covers

from ._call import Failure, TimedOut, attempted
from ._lane import Lane, Work, size_of

log = logging.getLogger("kepm_plugin.dispatch")

Answer = Callable[[Publication, int | None], None]
"""Publishes an answer; the number is that of the kept copy on disk, None where there is none."""

Trouble = Callable[[str, str | None], object]
"""Is told what degrades the plugin, by source; None says that it is over."""

Redact = Callable[[str, int], str]
"""Returns at most so many characters of a text, without secrets: they are never stored."""

UNWRITTEN = 1_000
"""Ends of messages that wait in memory while the store cannot be written; what is beyond is handled by the next run."""

UNWRITTEN_BYTES = 16 * 2**20
"""Bytes of the dead letters among them, likewise."""

DETAILS = 20_000
"""Characters of a dead letter's details, which are mostly a traceback, and of the reason in an answer."""


@dataclass(slots=True)
class Counters:
    """What became of the messages since start."""

    handled: int = 0
    rejected: int = 0
    failed: int = 0
    timed_out: int = 0
    crashed: int = 0
    """Given up since the process ended again and again while their handlers had them."""
    mismatched: int = 0
    unrouted: int = 0
    dropped: int = 0
    """Given up at QoS 0, or in a `subscribe()`, because whoever takes them was behind or about to end."""
    refused: int = 0
    """Left to the broker, without an acknowledgement: neither journal nor memory could take them."""

    def report(self) -> dict[str, int]:
        """Return the counters by name, in JSON's casing."""
        return {("timedOut" if name == "timed_out" else name): value for name, value in asdict(self).items()}


class Outcomes:
    """Ends messages: whatever happened, each is answered where it was a command, and done or buried in one commit."""

    def __init__(
        self,
        plugin_id: str,
        responses: Iterable[str],
        store: Store,
        answer: Answer,
        contract: Contract,
        trouble: Trouble,
        redact: Redact,
    ) -> None:
        self.counters = Counters()
        self._plugin_id, self._responses = plugin_id, tuple(responses)
        self._store, self._answer, self._contract, self._trouble = store, answer, contract, trouble
        self._redact = redact
        self._unwritten: deque[tuple[Callable[[], object], Work, int]] = deque()
        self._unwritten_bytes = 0

    def write_again(self) -> bool:
        """Write the ends that could not be written; tell whether none is left. Their answers went out already."""
        if not self._unwritten:
            return True
        while self._unwritten:
            write, work, size = self._unwritten[0]
            try:
                write()
            except StoreError as exc:
                self._trouble("store", str(exc))
                return False
            self._unwritten.popleft()
            self._unwritten_bytes -= size
            self._acknowledge(work)
        self._trouble("store", None)
        return True

    def undecoded(self, lane: Lane, work: Work, failure: Failure) -> None:
        """End a message whose payload is not what the handler takes."""
        correlation = correlation_of(work.received.payload, self._contract.correlation_field)
        if not isinstance(failure.error, PayloadMismatch):
            self._failed(lane, work, correlation, failure.error, self._where(lane, work))
            return
        self.counters.mismatched += 1
        reason = failure.error.reason
        log.warning("message.mismatched", extra=self._where(lane, work) | {"reason": reason})
        self._bury(lane, work, correlation, "payload mismatch", reason, answer=reason)

    def crashed(self, lane: Lane, work: Work) -> None:
        """End a message that has ended the process so often that it is not handled again."""
        self.counters.crashed += 1
        count = work.delivery - 1
        reason = f"given up after {count} deliveries"
        log.error("message.given_up", extra=self._where(lane, work) | {"reason": reason})
        correlation = correlation_of(work.received.payload, self._contract.correlation_field)
        details = f"the process ended {count} times while {lane.route.spec.name} had the message"
        self._bury(lane, work, correlation, "crashed", details, answer=reason)

    def orphaned(self, work: Work) -> None:
        """End a message of an earlier run that has no handler any more."""
        self._bury(None, work, None, "no handler", "the plugin has no handler for this topic any more", answer="")

    def ended(self, lane: Lane, work: Work, correlation: object, outcome: object, seconds: float) -> None:
        """End a message with what its handler returned, a `Failure` or `TimedOut`."""
        where = self._where(lane, work) | {"seconds": round(seconds, 3)}
        if isinstance(outcome, TimedOut):
            self.counters.timed_out += 1
            reason = f"timed out after {outcome.seconds:g} s"
            log.error("handler.timed_out", extra=where)
            self._bury(lane, work, correlation, "timeout", reason, answer=reason)
        elif isinstance(outcome, Failure) and outcome.rejected:
            self.counters.rejected += 1
            log.info("handler.rejected", extra=where | {"reason": str(outcome.error)})
            self._finish(lane, work, self._no(work.received, correlation, str(outcome.error)))
        elif isinstance(outcome, Failure):
            self._failed(lane, work, correlation, outcome.error, where)
        elif lane.route.response is None:
            self.counters.handled += 1
            log.debug("handler.done", extra=where)
            self._finish(lane, work, None)
        else:
            answer = attempted(encode_json, self._contract.answer_ok(_echoed(correlation, work.received), outcome))
            if isinstance(answer, Failure):
                self._failed(lane, work, correlation, answer.error, where)
                return
            self.counters.handled += 1
            log.info("handler.done", extra=where)
            self._finish(lane, work, answer)

    def _failed(
        self, lane: Lane, work: Work, correlation: object, error: BaseException, where: dict[str, object]
    ) -> None:
        self.counters.failed += 1
        log.error("handler.failed", exc_info=error, extra=where)
        details = "".join(traceback.format_exception(error))
        self._bury(lane, work, correlation, "failed", details, answer="internal error")

    def _bury(
        self, lane: Lane | None, work: Work, correlation: object, reason: str, details: str, *, answer: str
    ) -> None:
        no = self._no(work.received, correlation, answer)
        publication = None if lane is None else self._response(lane, work, no)
        details = self._redact(details, DETAILS)

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            return self._store.bury(work.received, reason=reason, details=details, id=work.id, answers=answers)

        self._end(work, publication, write, size_of(work.received) + len(details))

    def _finish(self, lane: Lane, work: Work, payload: bytes | None) -> None:
        publication = None if payload is None else self._response(lane, work, payload)
        number = work.id
        if number is None:
            if publication is not None:
                self._answer(publication, None)
            self._acknowledge(work)
            return

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            return self._store.finish(number, answers)

        self._end(work, publication, write, 0)

    def _end(self, work: Work, publication: Publication | None, write: Callable[..., list[int]], size: int) -> None:
        try:
            kept = write([publication] if publication else [])
        except StoreError as exc:
            # The caller hears of it now. If this process ends before it is written, the next run handles the message
            # again: at least once.
            if len(self._unwritten) < UNWRITTEN and self._unwritten_bytes + size <= UNWRITTEN_BYTES:
                self._unwritten.append((write, work, size))
                self._unwritten_bytes += size
            self._trouble("store", str(exc))
            if publication is not None:
                self._answer(publication, None)
            return
        if publication is not None:
            self._answer(publication, kept[0] if kept else None)
        self._acknowledge(work)
        if self._unwritten:
            self.write_again()
        else:
            self._trouble("store", None)

    def _acknowledge(self, work: Work) -> None:
        if work.acknowledge is not None:
            work.acknowledge([work.received.mid])

    def _no(self, received: Received, correlation: object, error: str) -> bytes:
        # A reason may quote a secret, and answers are stored until they are sent; or a name that is no Unicode.
        text = self._redact(error, DETAILS).encode("utf-8", "replace").decode()
        return encode_json(self._contract.answer_error(_echoed(correlation, received), text))

    def _response(self, lane: Lane, work: Work, payload: bytes) -> Publication | None:
        if lane.route.response is None:
            return None
        received = work.received
        wanted = received.response_topic
        # MQTT 5.0, section 4.10. Only below our own `Responses`: a caller must not choose where else we publish.
        if wanted is None or set("+#").intersection(wanted) or not any(covers(one, wanted) for one in self._responses):
            try:
                wanted = lane.route.response.topic(self._plugin_id, lane.params(received.topic))
            except BadTopic as exc:  # a level of the command's topic was empty
                log.warning("answer.impossible", extra=self._where(lane, work) | {"reason": exc.reason})
                return None
        return Publication(wanted, payload, correlation_data=received.correlation_data)

    def _where(self, lane: Lane, work: Work) -> dict[str, object]:
        return {"topic": work.received.topic, "handler": lane.route.spec.name}


def identity(correlation: object, received: Received) -> str | None:
    """Return the caller's identity of a command as text: from its payload, or else from MQTT 5's correlation data."""
    if correlation is None:
        return None if received.correlation_data is None else received.correlation_data.decode(errors="replace")
    return correlation if isinstance(correlation, str) else encode_json(correlation).decode()


def _echoed(correlation: object, received: Received) -> Any:
    return identity(None, received) if correlation is None else correlation
