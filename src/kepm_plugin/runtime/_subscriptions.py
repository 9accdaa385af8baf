"""Subscriptions of the moment: `Plugin.subscribe()`, beside what the link subscribes at each connect.

A refusal ends only the subscription that it is about: its filter may be wrong, or the deployed manifest of another
version, and neither is a reason to lose the link.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import anyio

from kepm_plugin.dispatch import Counters, Dispatcher
from kepm_plugin.errors import BadTopic, BrokerRefused, LinkLost
from kepm_plugin.link import Session
from kepm_plugin.message import Message, Received
from kepm_plugin.plugin import Subscription
from kepm_plugin.topics import covers, overlap, widest

if TYPE_CHECKING:  # few plugins subscribe while they run
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

log = logging.getLogger("kepm_plugin.runtime")

BACKLOG = 1_000
"""Messages that one `subscribe()` keeps for its reader; beyond, the newest are dropped and counted."""


class _Reading:
    """One open subscription: takes messages, as far as its reader does, and gives them out."""

    def __init__(self, topic_filter: str, counters: Counters) -> None:
        self.filter = topic_filter
        self.refusal: BrokerRefused | None = None
        self._counters = counters
        self._behind = False
        self._send: MemoryObjectSendStream[Message[bytes]]
        self._receive: MemoryObjectReceiveStream[Message[bytes]]
        self._send, self._receive = anyio.create_memory_object_stream(BACKLOG)

    def take(self, received: Received) -> None:
        """Keep a message for the reader."""
        try:
            self._send.send_nowait(_raw(received))
        except anyio.WouldBlock:
            self._counters.dropped += 1
            if not self._behind:
                log.warning("subscription.dropped", extra={"topic": received.topic, "reason": "its reader is behind"})
            self._behind = True
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):  # It was refused, or its reader leaves.
            self._counters.dropped += 1
        else:
            self._behind = self._behind and self._send.statistics().current_buffer_used > 1

    def refuse(self, refusal: BrokerRefused) -> None:
        """End it: its reader gets what has come, then the refusal."""
        self.refusal = refusal
        self._send.close()

    def close(self) -> None:
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[bytes]:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise self.refusal or StopAsyncIteration from None
        except anyio.ClosedResourceError:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Read no more."""
        await self._receive.aclose()


class Subscriptions:
    """What is open, and what of it the session of the moment has subscribed.

    Args:
        declared: What the link subscribes itself, at each connect.
        qos: At which the others are subscribed.
    """

    def __init__(self, declared: tuple[str, ...], qos: int) -> None:
        self._declared, self._qos = declared, qos
        self._open: list[_Reading] = []
        self._subscribed: list[str] = []
        self._settling = anyio.Lock()
        self._session: Session | None = None
        self.dispatcher: Dispatcher | None = None

    async def link_up(self, session: Session) -> None:
        """Subscribe what is open, over a session that has the declared filters."""
        async with self._settling:
            self._session, self._subscribed = session, list(self._declared)
        await self._settle()

    def link_lost(self) -> None:
        """Wait for the next session."""
        self._session = None

    @asynccontextmanager
    async def open(self, topic_filter: str) -> AsyncGenerator[Subscription]:
        """Receive what a filter brings while the context is open; while the link is down, from its return on.

        Raises:
            BadTopic: It overlaps another filter without being covered by it.
            BrokerRefused: The broker does not grant it; where it says so later, the reader is told.
            LinkLost: The plugin does not serve yet.
        """
        if self.dispatcher is None:
            raise LinkLost("the plugin does not serve yet, or no more; subscribe from a handler or a background method")
        self._check_overlap(topic_filter)
        reading = _Reading(topic_filter, self.dispatcher.counters)
        untap = self.dispatcher.tap(topic_filter, reading.take)
        self._open.append(reading)
        try:
            await self._settle()
            if reading.refusal is not None:
                raise reading.refusal
            yield reading
        finally:
            untap()
            reading.close()
            if reading in self._open:
                self._open.remove(reading)
            with anyio.move_on_after(1, shield=True):
                await self._settle()

    def _check_overlap(self, topic_filter: str) -> None:
        wanted = self._wanted()
        if any(covers(one, topic_filter) for one in wanted):
            return
        for one in wanted:
            if overlap(one, topic_filter):
                raise BadTopic(
                    topic_filter,
                    f"overlaps {one!r}, which is subscribed already, without being covered by it; brokers may then "
                    "deliver a message twice: make a level literal",
                )

    def _wanted(self) -> list[str]:
        # Nothing that another filter covers: brokers may deliver once per subscription.
        return widest([*self._declared, *(one.filter for one in self._open)])

    async def _settle(self) -> None:
        """Subscribe what is wanted and unsubscribe what is not."""
        async with self._settling:
            session = self._session
            if session is None:
                return
            try:
                while missing := sorted({*self._wanted()}.difference(self._subscribed)):
                    # One by one, since a refusal does not say in which of them it lies.
                    await self._subscribe(session, missing[0])
                if superfluous := sorted({*self._subscribed}.difference(self._wanted())):
                    await session.unsubscribe(superfluous)
                    self._subscribed = [one for one in self._subscribed if one not in superfluous]
            except LinkLost as exc:  # The next session makes up for it.
                log.debug("subscriptions.waiting", extra={"reason": str(exc)})

    async def _subscribe(self, session: Session, topic_filter: str) -> None:
        try:
            await session.subscribe([topic_filter], self._qos)
        except BrokerRefused as exc:
            log.error("subscription.refused", extra={"filter": topic_filter, "reason": str(exc)})
            for reading in [one for one in self._open if one.filter == topic_filter]:
                self._open.remove(reading)
                reading.refuse(exc)
        else:
            self._subscribed.append(topic_filter)


def _raw(received: Received) -> Message[Any]:
    return Message(
        payload=received.payload,
        topic=received.topic,
        retained=received.retained,
        qos=received.qos,
        received_at=received.received_at,
        properties=received.properties,
    )
