"""Questions to other plugins: each answer finds the call that waits for it by its correlation id."""

from typing import Any, cast
from uuid import uuid4

import anyio

from kepm_plugin.contract import Contract
from kepm_plugin.errors import BadPayload, LinkLost, NoAnswer, PayloadMismatch, Refused
from kepm_plugin.message import Publication, Received, converter, decode_json, encode_json
from kepm_plugin.outbox import Outbox


class _Question:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.answer: Any = None
        self.lost = ""


class Requests:
    """The questions that wait for an answer."""

    def __init__(self, outbox: Outbox, contract: Contract) -> None:
        self._outbox, self._contract = outbox, contract
        self._questions: dict[str, _Question] = {}
        self._nameless = 0
        """Messages on response topics that had no correlation id."""

    async def ask(self, topic: str, response: str, question: Any, answer_type: Any, timeout: float) -> Any:
        """Send a question and wait for the answer with its correlation id.

        Raises:
            BadPayload: The question is no JSON object.
            NoAnswer: None came in time; `timeout` is in seconds.
            Refused: The answer is no, or does not fit its type.
            LinkLost: The link was lost meanwhile.
        """
        body = decode_json(encode_json(question))
        if not isinstance(body, dict):
            raise BadPayload(f"the question on {topic!r} must be a JSON object, since its correlation id travels in it")
        correlation = uuid4().hex
        pending, nameless = _Question(), self._nameless
        self._questions[correlation] = pending
        payload = encode_json({**cast("dict[str, object]", body), self._contract.correlation_field: correlation})
        try:
            with anyio.move_on_after(timeout):
                await self._outbox.put(Publication(topic, payload))
                await pending.ended.wait()
        finally:
            del self._questions[correlation]
        if pending.lost:
            raise LinkLost(f"the link was lost before {response!r} brought an answer: {pending.lost}")
        if not pending.ended.is_set():
            raise NoAnswer(
                f"nothing on {response!r} answered the question on {topic!r} within {timeout:g} s"
                + self._strangers(self._nameless - nameless)
            )
        return self._result(pending.answer, answer_type, topic)

    def answered(self, received: Received) -> None:
        """Take a message of a response topic; answers to others are nothing to us."""
        try:
            answer = decode_json(received.payload)
        except PayloadMismatch:
            return
        if not isinstance(answer, dict):
            return
        answer = cast("dict[str, Any]", answer)
        correlation: object = answer.get(self._contract.correlation_field)
        self._nameless += correlation is None
        if (
            isinstance(correlation, str)
            and (pending := self._questions.get(correlation)) is not None
            and not self._contract.is_interim(answer)
        ):
            pending.answer = answer
            pending.ended.set()

    def link_lost(self, reason: str) -> None:
        """Tell those who wait for an answer."""
        for pending in self._questions.values():
            if not pending.ended.is_set():
                pending.lost = reason
                pending.ended.set()

    def _result(self, answer: dict[str, Any], answer_type: Any, topic: str) -> Any:
        if (reason := self._contract.refusal(answer)) is not None:
            raise Refused(topic, reason)
        try:
            return converter(answer_type)(self._contract.result(answer))
        except PayloadMismatch as exc:
            raise Refused(topic, f"the answer does not fit: {exc.reason}") from exc

    def _strangers(self, count: int) -> str:
        if not count:
            return ""
        return (
            f"; {count} message(s) came there without the property {self._contract.correlation_field!r}: if that is "
            "the answer, look at the contract's correlation_field"
        )
