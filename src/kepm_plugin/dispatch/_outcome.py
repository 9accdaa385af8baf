"""What comes of a handler's call: its answer, its dead letter, another try, one line in the log."""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kepm_plugin.contract import Contract
from kepm_plugin.errors import BadPayload, BadTopic, PayloadMismatch, Rejected, Retry, StoreError
from kepm_plugin.message import Publication, Received, correlation_of, decode_json, encode_json
from kepm_plugin.store import Keep, Store
from kepm_plugin.topics import covers

from ._call import Failure, TimedOut, attempted
from ._counters import Counters
from ._ends import Answer, Ends, Trouble
from ._lane import LIMIT, Lane
from ._later import backoff
from ._window import Key, Seen, Window, key
from ._work import Work, size_of

log = logging.getLogger("kepm_plugin.dispatch")

Redact = Callable[[str, int], str]
"""Returns at most so many characters of a text, without secrets: they are never stored."""

DETAILS = 20_000
"""Characters of a dead letter's details, which are mostly a traceback, and of the reason in an answer."""


class Outcomes:
    """Ends messages: whatever happened, each is answered where it was a command, and done, buried or put off."""

    def __init__(
        self,
        plugin_id: str,
        responses: Iterable[str],
        store: Store,
        answer: Answer,
        contract: Contract,
        trouble: Trouble,
        redact: Redact,
        window: Window,
    ) -> None:
        self.counters = Counters()
        self.ends = Ends(store, answer, trouble)
        self._plugin_id, self._responses = plugin_id, tuple(responses)
        self._store, self._contract, self._trouble = store, contract, trouble
        self._redact, self._window = redact, window
        self._nameless: set[str] = set()
        """Handlers of commands that came without a correlation id, of which the log has been told."""

    # --- without a call -----------------------------------------------------------------------------------------------

    def undecoded(self, lane: Lane, work: Work, failure: Failure) -> None:
        """End a message whose payload is not what the handler takes."""
        correlation = self._correlation(work)
        if not isinstance(failure.error, PayloadMismatch):
            self._failed(lane, work, correlation, failure.error, self._where(lane, work), answered=False)
            return
        self.counters.mismatched += 1
        reason = failure.error.reason
        where = self._where(lane, work)
        log.warning("message.mismatched", extra=where | {"reason": reason})
        self._note_caller(lane, work, correlation, where)
        self._bury(lane, work, correlation, "payload mismatch", reason, answer=reason)

    def repeated(self, lane: Lane, work: Work, seen: Seen, caller: int) -> None:
        """End a message that repeats one; who asks again is answered again, once there is an answer.

        Where that one is in memory alone, a kill would lose both: this one is then kept until that one has ended. So is
        one whose caller would not know the other one's answer for its own.
        """
        waits = not seen.ended and lane.is_command and caller != seen.caller
        if not waits and (seen.safe or not work.received.qos):
            self._end_repeated(lane, work, seen, answers=True)
        elif len(seen.behind) < LIMIT:
            # What is in the journal was promised an answer that survives a kill; for others one will do.
            answers = waits or work.id is not None
            seen.behind.append((waits, lambda: self._end_repeated(lane, work, seen, answers=answers)))
        else:
            self.counters.refused += 1

    def _end_repeated(self, lane: Lane, work: Work, seen: Seen, *, answers: bool) -> None:
        self.counters.duplicates += 1
        log.info("message.duplicate", extra=self._where(lane, work))
        self._finish(lane, work, self._again(work, seen) if answers else None)

    def _again(self, work: Work, seen: Seen) -> bytes | None:
        """Return the answer of the message that this one repeats, with this one's correlation id."""
        if seen.answer is None:
            return None
        answer = decode_json(seen.answer)
        answer[self._contract.correlation_field] = echoed(self._correlation(work), work.received)
        return encode_json(answer)

    def crashed(self, lane: Lane, work: Work) -> None:
        """End a message that has ended the process so often that it is not handled again."""
        self.counters.crashed += 1
        count = work.delivery - 1
        details = f"the process ended {count} times while {lane.route.spec.name} had the message"
        self._give_up(lane, work, "crashed", details, f"given up after {count} deliveries")

    def too_old(self, lane: Lane | None, work: Work) -> None:
        """End a message that has waited for too long: for its handler, or for its ticket's answer."""
        self.counters.too_old += 1
        waited = time.time() - work.received.received_at
        self._give_up(lane, work, "too old", f"it waited for {waited / 3600:.1f} hours", "it was not handled in time")

    def orphaned(self, work: Work) -> None:
        """End a message of an earlier run that has no handler any more."""
        self._bury(None, work, None, "no handler", "the plugin has no handler for this topic any more", answer="")

    def _give_up(self, lane: Lane | None, work: Work, reason: str, details: str, answer: str) -> None:
        log.error("message.given_up", extra=self._where(lane, work) | {"reason": reason, "details": details})
        self._bury(lane, work, self._correlation(work), reason, details, answer=answer)

    # --- after a call -------------------------------------------------------------------------------------------------

    def ended(
        self,
        lane: Lane,
        work: Work,
        correlation: object,
        outcome: object,
        seconds: float,
    ) -> None:
        """End a message with what its handler returned, a `Failure` or `TimedOut`, or put it off."""
        if outcome is None and not lane.is_command and work.ticket is None and not log.isEnabledFor(logging.DEBUG):
            self.counters.handled += 1  # the way of nearly every message
            self._finish(lane, work, None)
            return
        answered = work.answered
        where = self._where(lane, work) | {"seconds": round(seconds, 3)}
        failure = outcome.error if isinstance(outcome, Failure) else None
        if isinstance(outcome, TimedOut):
            reason = f"timed out after {outcome.seconds:g} s"
            if not self._retried(lane, work, where | {"reason": reason}):
                self.counters.timed_out += 1
                log.error("handler.timed_out", extra=where)
                self._bury(lane, work, correlation, "timeout", reason, answer=None if answered else reason)
        elif isinstance(failure, Retry):
            self._put_off(lane, work, failure.after, where | {"reason": failure.reason})
        elif isinstance(failure, Rejected):
            self.counters.rejected += 1
            log.info("handler.rejected", extra=where | {"reason": str(failure)})
            self._finish(lane, work, None if answered else self._no(work.received, correlation, str(failure)))
        elif failure is not None:
            self._failed(lane, work, correlation, failure, where, answered=answered)
        elif work.ticket is not None:
            self._deferred(lane, work, work.ticket, outcome, where)
        elif not lane.is_command:
            self.counters.handled += 1
            log.debug("handler.done", extra=where)
            self._finish(lane, work, None)
        else:
            answer = attempted(encode_json, self._contract.answer_ok(echoed(correlation, work.received), outcome))
            if isinstance(answer, Failure):
                self._failed(lane, work, correlation, answer.error, where, answered=False)
                return
            self.counters.handled += 1
            log.info("handler.done", extra=where)
            self._note_caller(lane, work, correlation, where)
            self._finish(lane, work, answer)

    def _note_caller(self, lane: Lane, work: Work, correlation: object, where: dict[str, object]) -> None:
        """Say, once for each handler, that a command's caller cannot know the answer for its own."""
        if not lane.is_command or lane.route.spec.name in self._nameless:
            return
        if identity(correlation, work.received) is None:
            self._nameless.add(lane.route.spec.name)
            reason = (
                f"the command has no property {self._contract.correlation_field!r}, so its answer has none of a "
                "caller's; if callers name it otherwise, look at the contract's correlation_field (docs/contract.md)"
            )
            log.warning("command.nameless", extra=where | {"reason": reason})

    def _failed(
        self,
        lane: Lane,
        work: Work,
        correlation: object,
        error: BaseException,
        where: dict[str, object],
        *,
        answered: bool,
    ) -> None:
        if self._retried(lane, work, where, error):
            return
        self.counters.failed += 1
        log.error("handler.failed", exc_info=error, extra=where)
        details = "".join(traceback.format_exception(error))
        self._bury(lane, work, correlation, "failed", details, answer=None if answered else "internal error")

    def _retried(self, lane: Lane, work: Work, where: dict[str, object], error: BaseException | None = None) -> bool:
        """Put a message off where its handler has retries left."""
        if work.attempts >= lane.route.spec.handler.retries:
            return False
        self._put_off(lane, work, backoff(work.attempts), where, error)
        return True

    def _put_off(
        self, lane: Lane, work: Work, seconds: float, where: dict[str, object], error: BaseException | None = None
    ) -> None:
        work.attempts += 1
        work.due = time.time() + seconds
        self.counters.retried += 1
        log.warning("handler.retried", exc_info=error, extra=where | {"after": seconds, "attempts": work.attempts})
        if work.id is not None:
            try:
                self._store.postpone(work.id, work.attempts, work.due)
            except StoreError as exc:  # It is tried again all the same; only a later run would not know of it.
                self._trouble("store", str(exc))

    def _deferred(self, lane: Lane, work: Work, ticket: str, result: object, where: dict[str, object]) -> None:
        self.counters.handled += 1
        if result is not None:
            log.warning("handler.result_ignored", extra=where | {"reason": "the answer was left for later by defer()"})
        if work.answered:
            log.info("handler.done", extra=where)
            self._finish(lane, work, None)
            return
        log.info("handler.deferred", extra=where)
        work.deferred = True

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            if work.answered:  # while it could not be written
                return [] if work.id is None else self._store.finish(work.id, answers)
            self._store.defer(ticket, work.id, work.received)
            work.stored = True
            return []

        self.ends.write(work, None, write, size_of(work.received))

    # --- by ticket ----------------------------------------------------------------------------------------------------

    def answer_early(self, lane: Lane, work: Work, correlation: object, result: object) -> None:
        """Send the answer of a command whose handler still runs, and will end the message."""
        payload = self._payload(correlation, work.received, result)
        work.answered = True  # before anything is written: that may write what is owed, the end of this one among it
        self._window.answered(work.seen, payload)
        if (publication := self.response(lane, work, payload)) is None:
            return
        if work.id is None:
            self.ends.answer(publication, None, None)
            return

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            return self._store.keep([(Keep.ANSWER, answer) for answer in answers])

        # As the end of nothing: the message's own comes later.
        self.ends.write(Work(work.received, 0), publication, write, 0)

    def answer_late(self, lane: Lane, work: Work, correlation: object, result: object) -> None:
        """End a command by its ticket."""
        work.seen = self._window.find(key_of(lane, work.received, correlation))
        self._finish(lane, work, self._payload(correlation, work.received, result))

    def _payload(self, correlation: object, received: Received, result: object) -> bytes:
        if isinstance(result, Rejected):
            return self._no(received, correlation, result.reason)
        return encode_json(self._contract.answer_ok(echoed(correlation, received), result))

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _bury(
        self, lane: Lane | None, work: Work, correlation: object, reason: str, details: str, *, answer: str | None
    ) -> None:
        publication = None
        if lane is not None and answer is not None:
            payload = self._no(work.received, correlation, answer)
            publication = self.response(lane, work, payload)
            self._window.answered(work.seen, payload)  # for whoever waits for the same
        self._window.forget(work.seen)
        details = self._redact(details, DETAILS)

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            return self._store.bury(work.received, reason=reason, details=details, id=work.id, answers=answers)

        self.ends.write(work, publication, write, size_of(work.received) + len(details))

    def _finish(self, lane: Lane, work: Work, payload: bytes | None) -> None:
        publication = None
        if payload is not None:
            self._window.answered(work.seen, payload)
            publication = self.response(lane, work, payload)
        number = work.id
        if number is None:
            if publication is not None:
                self.ends.answer(publication, None, None)
            self.ends.acknowledge(work)
            return
        if publication is None and work.delivery == 1:
            # Of those that an earlier run left each delivery is counted: one that has ended must not count once more.
            self.ends.write_soon(number, work)
            return

        def write(answers: Sequence[Publication] = ()) -> list[int]:
            return self._store.finish(number, answers)

        self.ends.write(work, publication, write, 0)

    def _correlation(self, work: Work) -> object:
        return correlation_of(work.received.payload, self._contract.correlation_field)

    def _no(self, received: Received, correlation: object, error: str) -> bytes:
        # A reason may quote a secret, and answers are stored until they are sent; or a name that is no Unicode.
        text = self._redact(error, DETAILS).encode("utf-8", "replace").decode()
        try:
            return encode_json(self._contract.answer_error(echoed(correlation, received), text))
        except BadPayload:  # one that can be read, but is nested too deeply to be written
            return encode_json(self._contract.answer_error(None, text))

    def response(self, lane: Lane, work: Work, payload: bytes) -> Publication | None:
        """Return a publication for whoever sent a command; None for a topic, and where its topic is impossible."""
        if lane.route.response is None:
            return None
        received = work.received
        wanted = received.response_topic
        # MQTT 5.0, section 4.10. Only below our own `Responses`: a caller must not choose where else we publish.
        if (
            wanted is None
            or set("+#\0").intersection(wanted)
            or not any(covers(one, wanted) for one in self._responses)
        ):
            try:
                wanted = lane.route.response.topic(self._plugin_id, lane.params(received.topic))
            except BadTopic as exc:  # a level of the command's topic was empty
                log.warning("answer.impossible", extra=self._where(lane, work) | {"reason": exc.reason})
                return None
        return Publication(wanted, payload, correlation_data=received.correlation_data)

    def _where(self, lane: Lane | None, work: Work) -> dict[str, object]:
        name = {} if lane is None else {"handler": lane.route.spec.name}
        return {"topic": work.received.topic, **name}


def identity(correlation: object, received: Received) -> str | None:
    """Return the caller's identity of a command as text: from its payload, or else from MQTT 5's correlation data."""
    if correlation is None:
        return None if received.correlation_data is None else received.correlation_data.decode(errors="replace")
    return correlation if isinstance(correlation, str) else _text(correlation)


def _text(value: object) -> str | None:
    try:
        return encode_json(value).decode()
    except BadPayload:  # nested too deeply to be written
        return None


def key_of(lane: Lane, received: Received, correlation: object) -> Key | None:
    """Return what identifies a message to a handler, None where nothing does; `correlation` is that of its payload."""
    field = lane.dedupe
    if field is not None:
        value = correlation_of(received.payload, field)
        named = None if value is None else _text(value)
    elif correlation is None:  # Two that are no text, or not the same text, must not be taken for one.
        data = received.correlation_data
        return None if data is None else key(lane.route.filter, b"data:" + data)
    else:
        named = identity(correlation, received)
    return None if named is None else key(lane.route.filter, named.encode("utf-8", "surrogatepass"))


def echoed(correlation: object, received: Received) -> Any:
    """Return what goes back to the caller as its correlation id."""
    return identity(None, received) if correlation is None else correlation
