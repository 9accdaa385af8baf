"""What a running plugin can ask for: publishing, requests, subscriptions, settings."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from uuid import uuid4

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from kepm_plugin.contract import Contract
from kepm_plugin.dispatch import Counters, Dispatcher
from kepm_plugin.errors import BadPayload, BadTopic, LinkLost, NoAnswer, PayloadMismatch, Refused
from kepm_plugin.link import Session
from kepm_plugin.message import Message, Publication, Received, converter, decode_json, encode_json
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Declarations, Subscription
from kepm_plugin.topics import covers, overlap, widest

from ._settings import Agent, LiveSettings, system_settings

log = logging.getLogger("kepm_plugin.runtime")

BACKLOG = 1_000
"""Messages that one `subscribe()` keeps for its reader; beyond, the newest are dropped and counted."""


class _Question:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.answer: Any = None
        self.lost = ""


class _Reader:
    """Forwards messages to whoever reads a subscription, as far as they are taken."""

    def __init__(self, send: MemoryObjectSendStream[Message[bytes]], counters: Counters) -> None:
        self._send, self._counters = send, counters
        self._behind = False

    def __call__(self, received: Received) -> None:
        try:
            self._send.send_nowait(_raw(received))
        except anyio.WouldBlock:
            self._counters.dropped += 1
            if not self._behind:
                log.warning("subscription.dropped", extra={"topic": received.topic, "reason": "its reader is behind"})
            self._behind = True
        except anyio.BrokenResourceError:  # The reader has closed it, and leaves.
            self._counters.dropped += 1
        else:
            self._behind = self._behind and self._send.statistics().current_buffer_used > 1


class PluginHost:
    """The `Host` of a running plugin. `session` is None while the link is down."""

    def __init__(
        self,
        outbox: Outbox,
        contract: Contract,
        agent: Agent,
        settings: LiveSettings,
        run_soon: Callable[[Callable[[], object]], None],
        declarations: Declarations,
    ) -> None:
        self._outbox, self._contract, self._agent, self._settings = outbox, contract, agent, settings
        self._run_soon = run_soon
        self.declarations = declarations
        self._dynamic: list[str] = []
        self._subscribed: list[str] = []
        self._subscribing = anyio.Lock()
        self._questions: dict[str, _Question] = {}
        self.session: Session | None = None
        self.dispatcher: Dispatcher | None = None

    def filters(self) -> list[str]:
        """Return everything to subscribe at a connect."""
        self._subscribed = self._wanted()
        return self._subscribed

    def _wanted(self) -> list[str]:
        # Nothing that another filter covers: brokers may deliver once per subscription.
        return widest([*self.declarations.filters, *self._dynamic])

    async def link_up(self, session: Session) -> None:
        """Use a session whose `filters` are subscribed."""
        self.session = session
        await self._settle_subscriptions()

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
            if not pending.ended.is_set():
                pending.lost = reason
                pending.ended.set()

    @asynccontextmanager
    async def subscribe(self, topic_filter: str) -> AsyncGenerator[Subscription]:
        """Receive what a filter brings while the context is open; while the link is down, from its return on."""
        if self.dispatcher is None:
            raise LinkLost("the plugin does not serve yet, or no more; subscribe from a handler or a background method")
        if not any(covers(one, topic_filter) for one in self._wanted()):
            for one in self._wanted():
                if overlap(one, topic_filter):
                    raise BadTopic(
                        topic_filter,
                        f"overlaps {one!r}, which is subscribed already, without being covered by it; brokers may then "
                        "deliver a message twice: make a level literal",
                    )
        send, receive = anyio.create_memory_object_stream[Message[bytes]](BACKLOG)
        untap = self.dispatcher.tap(topic_filter, _Reader(send, self.dispatcher.counters))
        self._dynamic.append(topic_filter)
        try:
            await self._settle_subscriptions()
            with send, receive:
                yield receive
        finally:
            untap()
            self._dynamic.remove(topic_filter)
            with anyio.move_on_after(1, shield=True):
                await self._settle_subscriptions()

    async def _settle_subscriptions(self) -> None:
        """Subscribe what is wanted and unsubscribe what is not; a new session does so by itself."""
        async with self._subscribing:
            wanted, session = self._wanted(), self.session
            if session is None or wanted == self._subscribed:
                return
            with suppress(LinkLost):
                if missing := [one for one in wanted if one not in self._subscribed]:
                    await session.subscribe(missing, self.declarations.plugin.qos)
                if superfluous := [one for one in self._subscribed if one not in wanted]:
                    await session.unsubscribe(superfluous)
                self._subscribed = wanted

    async def write_settings(self, changes: dict[str, Any]) -> None:
        """Write what changed, and take the new snapshot."""
        await self._settings.write(changes)

    async def revert_settings(self) -> None:
        """Revert, and take the new snapshot."""
        await self._settings.revert()

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings."""
        return await system_settings(self._agent)


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
