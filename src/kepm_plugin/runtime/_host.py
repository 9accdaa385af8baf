"""What a running plugin can ask for: publishing, requests, subscriptions, settings."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import anyio

from kepm_plugin.contract import Contract
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.errors import BadPayload, BadTopic, LinkLost, NoAnswer, PayloadMismatch, Refused
from kepm_plugin.link import Session
from kepm_plugin.message import Message, Publication, Received, converter, decode_json, encode_json
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Declarations, Subscription
from kepm_plugin.topics import covers, overlap

from ._settings import Agent, LiveSettings, system_settings

log = logging.getLogger("kepm_plugin.runtime")

BACKLOG = 1_000
"""Messages that one `subscribe()` keeps for its reader; beyond, the newest are dropped and counted."""


class _Question:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.answer: Any = None
        self.lost = ""


class PluginHost:
    """The `Host` of a running plugin. `session` is None while the link is down."""

    def __init__(
        self,
        outbox: Outbox,
        contract: Contract,
        agent: Agent,
        settings: LiveSettings,
        refresh: Callable[[], Any],
        run_soon: Callable[[Callable[[], object]], None],
        declarations: Declarations,
    ) -> None:
        self._outbox, self._contract, self._agent, self._settings = outbox, contract, agent, settings
        self._refresh, self._run_soon = refresh, run_soon
        self.declarations = declarations
        self._dynamic: list[str] = []
        self._questions: dict[str, _Question] = {}
        self.session: Session | None = None
        self.dispatcher: Dispatcher | None = None

    def filters(self) -> list[str]:
        """Return everything to subscribe at a connect."""
        return [*self.declarations.filters, *dict.fromkeys(self._dynamic)]

    async def publish(self, publication: Publication, *, wait: Any, timeout: float | None) -> None:
        """Hand over to the outbox; wait for it, or for the broker's acknowledgement."""
        await self._outbox.put(publication, wait=wait, timeout=timeout)

    def publish_soon(self, publication: Publication) -> None:
        """Hand over to the outbox from any thread."""
        self._run_soon(lambda: self._outbox.put_soon(publication))

    async def request(self, topic: str, response: str, question: Any, answer_type: Any, timeout: float) -> Any:
        """Send a question and wait for the answer with its correlation id."""
        body = decode_json(encode_json(question))
        if not isinstance(body, dict):
            raise BadPayload(f"the question on {topic!r} must be a JSON object, since its correlation id travels in it")
        if self.session is None:
            raise LinkLost(f"the link is down; the question on {topic!r} was not sent")
        correlation = uuid4().hex
        pending = self._questions[correlation] = _Question()
        payload = encode_json({self._contract.correlation_field: correlation, **cast("dict[str, object]", body)})
        try:
            with anyio.move_on_after(timeout):
                await self._outbox.put(Publication(topic, payload), timeout=timeout)
                await pending.ended.wait()
        finally:
            del self._questions[correlation]
        if pending.lost:
            raise LinkLost(f"the link was lost before {response!r} brought an answer: {pending.lost}")
        if not pending.ended.is_set():
            raise NoAnswer(f"nothing on {response!r} answered the question on {topic!r} within {timeout:g} s")
        return _result(pending.answer, answer_type, topic, self._contract.correlation_field)

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
        if isinstance(correlation, str) and (pending := self._questions.get(correlation)) is not None:
            # An interim report is no answer yet.
            if "progress" in answer and "ok" not in answer:
                return
            pending.answer = answer
            pending.ended.set()

    def link_lost(self, reason: str) -> None:
        """Tell those who wait for an answer."""
        self.session = None
        for pending in self._questions.values():
            pending.lost = reason
            pending.ended.set()

    @asynccontextmanager
    async def subscribe(self, topic_filter: str) -> AsyncGenerator[Subscription]:
        """Receive what a filter brings while the context is open."""
        covered = any(covers(one, topic_filter) for one in self.filters())
        if not covered:
            for one in self.filters():
                if overlap(one, topic_filter):
                    raise BadTopic(
                        topic_filter,
                        f"overlaps {one!r}, which is subscribed already, without being covered by it; brokers may then "
                        "deliver a message twice: make a level literal",
                    )
        send, receive = anyio.create_memory_object_stream[Message[bytes]](BACKLOG)

        def take(received: Received) -> None:
            try:
                send.send_nowait(_raw(received))
            except anyio.WouldBlock:
                log.warning("subscription.dropped", extra={"topic": received.topic, "reason": "its reader is behind"})

        if self.dispatcher is None:
            raise LinkLost("the plugin does not serve yet, or no more; subscribe from a handler or a background method")
        untap = self.dispatcher.tap(topic_filter, take)
        self._dynamic.append(topic_filter)
        try:
            if not covered and self.session is not None:
                await self.session.subscribe([topic_filter], 1)
            with send, receive:
                yield receive
        finally:
            untap()
            self._dynamic.remove(topic_filter)
            if not covered and self.session is not None and topic_filter not in self._dynamic:
                with anyio.move_on_after(1, shield=True):
                    await _quietly_unsubscribe(self.session, topic_filter)

    async def write_settings(self, changes: dict[str, Any]) -> None:
        """Write what changed, and take the new snapshot."""
        await self._settings.write(changes)
        await self._refresh()

    async def revert_settings(self) -> None:
        """Revert, and take the new snapshot."""
        await self._settings.revert()
        await self._refresh()

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings."""
        return await system_settings(self._agent)


async def _quietly_unsubscribe(session: Session, topic_filter: str) -> None:
    try:
        await session.unsubscribe([topic_filter])
    except LinkLost:
        log.debug("subscription.gone", extra={"topic": topic_filter})


def _raw(received: Received) -> Message[bytes]:
    return Message(
        payload=received.payload,
        topic=received.topic,
        retained=received.retained,
        qos=received.qos,
        received_at=received.received_at,
        properties=received.properties,
    )


def _result(answer: dict[str, Any], answer_type: Any, topic: str, correlation_field: str) -> Any:
    if answer.get("ok") is False:
        raise Refused(topic, str(answer.get("error", "no reason given")))
    # Another plugin may answer without our envelope: then the object itself is the result.
    enveloped = "ok" in answer and "result" in answer
    bare = {name: value for name, value in answer.items() if name != correlation_field}
    try:
        return converter(answer_type)(answer["result"] if enveloped else bare)
    except PayloadMismatch as exc:
        raise Refused(topic, f"the answer does not fit: {exc.reason}") from exc
