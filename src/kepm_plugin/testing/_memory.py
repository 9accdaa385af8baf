"""An MQTT broker in memory: sessions, retained messages, wills, QoS 0 and 1, takeovers.

It delivers once per subscription that a message falls under, as MQTT 5 allows (section 3.3.4), so that what relies on
more is found. One contract suite runs over this broker and over real ones.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from time import time

import anyio
import anyio.lowlevel

from kepm_plugin.errors import BrokerRefused, LinkLost
from kepm_plugin.link import Deliver
from kepm_plugin.message import Publication, Received
from kepm_plugin.topics import check_filter, matches

IN_FLIGHT = 20
"""Unacknowledged messages per session, as brokers have it by default."""


@dataclass(eq=False)
class _Kept:
    """What the broker remembers of a client."""

    filters: dict[str, int] = field(default_factory=dict[str, int])
    waiting: deque[Received] = field(default_factory=deque[Received])
    in_flight: dict[int, Received] = field(default_factory=dict[int, Received])
    mids: "count[int]" = field(default_factory=lambda: count(1))
    clean: bool = True


class MemoryBroker:
    """The broker. Belongs to one event loop."""

    def __init__(self) -> None:
        self.up = True
        """False refuses connections; see `kill`."""
        self._kept: dict[str, _Kept] = {}
        self._sessions: dict[str, MemorySession] = {}
        self._retained: dict[str, Publication] = {}
        self._watchers: list[Callable[[Publication], None]] = []

    def watch(self, function: Callable[[Publication], None]) -> None:
        """Show every publication to a function."""
        self._watchers.append(function)

    @asynccontextmanager
    async def connect(
        self, client_id: str, deliver: Deliver, *, clean: bool = True, will: Publication | None = None
    ) -> AsyncGenerator["MemorySession"]:
        """Yield a session; the way of connecting that a link needs, once the first arguments are bound.

        Raises:
            LinkLost: The broker is down.
        """
        await anyio.lowlevel.checkpoint()
        if not self.up:
            raise LinkLost("the broker in memory is down")
        if (older := self._sessions.pop(client_id, None)) is not None:
            older.cut("the session was taken over by another connection with the same client id")
        kept = None if clean else self._kept.get(client_id)
        session = MemorySession(self, client_id, kept or _Kept(), session_present=kept is not None)
        session.kept.clean = clean
        session.kept.waiting.extendleft(reversed(session.kept.in_flight.values()))
        session.kept.in_flight.clear()
        self._kept[client_id] = session.kept
        self._sessions[client_id] = session
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.feed, deliver, name="kepm.memory.feed")
                yield session
                tasks.cancel_scope.cancel()
        finally:
            if not session.ended.is_set():  # Left on purpose, as by DISCONNECT.
                will = None
            if self._sessions.get(client_id) is session:
                del self._sessions[client_id]
                session.cut("disconnected")
            if clean and self._kept.get(client_id) is session.kept:
                del self._kept[client_id]
            if will is not None:
                self.route(will)

    def kill(self) -> None:
        """Drop every connection, and refuse new ones until `up` is set again."""
        self.up = False
        for session in list(self._sessions.values()):
            session.cut("the broker in memory was killed")

    def route(self, publication: Publication) -> None:
        """Deliver a publication to whoever has subscribed."""
        for watcher in self._watchers:
            watcher(publication)
        if publication.retain:
            if publication.payload:
                self._retained[publication.topic] = publication
            else:
                self._retained.pop(publication.topic, None)
        for client_id, kept in list(self._kept.items()):
            for topic_filter, qos in kept.filters.items():
                if matches(topic_filter, publication.topic):
                    self._queue(client_id, kept, publication, min(qos, publication.qos), retained=False)

    def retained_for(self, client_id: str, kept: _Kept, topic_filter: str, qos: int) -> None:
        """Deliver what was retained to a new subscription."""
        for publication in self._retained.values():
            if matches(topic_filter, publication.topic):
                self._queue(client_id, kept, publication, min(qos, publication.qos), retained=True)

    def _queue(self, client_id: str, kept: _Kept, publication: Publication, qos: int, *, retained: bool) -> None:
        session = self._sessions.get(client_id)
        if session is None and (kept.clean or qos == 0):
            return
        mid = next(kept.mids) % 65_535 + 1 if qos else 0
        kept.waiting.append(
            Received(
                topic=publication.topic,
                payload=publication.payload,
                qos=qos,
                retained=retained,
                mid=mid,
                received_at=time(),
                correlation_data=publication.correlation_data,
            )
        )
        if session is not None:
            session.wake.set()


class MemorySession:
    """One connection, with the interface that the link needs."""

    version = "memory"
    in_flight_maximum = IN_FLIGHT

    def __init__(self, broker: MemoryBroker, client_id: str, kept: _Kept, *, session_present: bool) -> None:
        self._broker, self._client_id, self.kept = broker, client_id, kept
        self.session_present = session_present
        self.wake = anyio.Event()
        self.ended = anyio.Event()
        self._reason = ""

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Subscribe; retained messages follow."""
        await self._turn()
        for topic_filter in filters:
            check_filter(topic_filter)
            if qos not in (0, 1, 2):
                raise BrokerRefused(f"SUBACK refuses {topic_filter!r}: no QoS {qos}", code=0x80)
            self.kept.filters[topic_filter] = min(qos, 1)
            self._broker.retained_for(self._client_id, self.kept, topic_filter, qos)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions."""
        await self._turn()
        for topic_filter in filters:
            self.kept.filters.pop(topic_filter, None)

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Take acknowledgements."""
        for mid in mids:
            self.kept.in_flight.pop(mid, None)
        self.wake.set()

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Deliver at once."""
        if self.ended.is_set():
            raise LinkLost(self._reason)
        self._broker.route(publication)
        if acknowledged is not None:
            acknowledged()

    async def lost(self) -> str:
        """Return when the connection is gone."""
        await self.ended.wait()
        return self._reason

    def cut(self, reason: str) -> None:
        """End the connection without a goodbye."""
        if not self.ended.is_set():
            self._reason = reason
            self.ended.set()
            self.wake.set()

    async def feed(self, deliver: Deliver) -> None:
        """Hand over what waits, in batches, never more than may be unacknowledged."""
        while not self.ended.is_set():
            batch: list[Received] = []
            while self.kept.waiting and (not self.kept.waiting[0].mid or len(self.kept.in_flight) < IN_FLIGHT):
                received = self.kept.waiting.popleft()
                if received.mid:
                    self.kept.in_flight[received.mid] = received
                batch.append(received)
            if batch:
                deliver(batch)
                await anyio.lowlevel.checkpoint()
            else:
                self.wake = anyio.Event()
                await self.wake.wait()

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.ended.is_set():
            raise LinkLost(self._reason)
