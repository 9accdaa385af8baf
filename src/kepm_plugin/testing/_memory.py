"""An MQTT broker in memory: sessions, retained messages, wills, takeovers, a window of unacknowledged messages.

It delivers once per subscription that a message falls under, as MQTT 5 allows (section 3.3.4), so that what relies on
more is found. One contract suite runs over this broker and over real ones.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from time import time

import anyio
import anyio.lowlevel

from kepm_plugin.errors import AgentUnreachable, LinkLost
from kepm_plugin.eventloop import bare_task_group, loop_clock
from kepm_plugin.link import Deliver, Ending
from kepm_plugin.message import Publication, Received
from kepm_plugin.topics import check_filter, matches

IN_FLIGHT = 20
"""Unacknowledged messages per session, as brokers have it by default."""


@dataclass(eq=False)
class _Kept:
    """What the broker remembers of a client."""

    clean: bool
    filters: dict[str, int] = field(default_factory=dict[str, int])
    waiting: deque[Received] = field(default_factory=deque[Received])
    in_flight: dict[int, Received] = field(default_factory=dict[int, Received])
    mids: "count[int]" = field(default_factory=lambda: count(1))

    def next_batch(self) -> list[Received]:
        """Take what may be delivered now; only QoS 0 passes a full window."""
        batch: list[Received] = []
        behind: deque[Received] = deque()
        while self.waiting:
            received = self.waiting.popleft()
            if received.mid and len(self.in_flight) >= IN_FLIGHT:
                behind.append(received)
                continue
            if received.mid:
                self.in_flight[received.mid] = received
            batch.append(received)
        self.waiting = behind
        return batch


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
        """Yield a session, and disconnect at the end.

        Raises:
            AgentUnreachable: The broker is down.
        """
        await anyio.lowlevel.checkpoint()
        if not self.up:
            raise AgentUnreachable("the broker in memory is down")
        self.cut(client_id, "another connection with the same client id took the session over", "taken over")
        kept = None if clean else self._kept.get(client_id)
        session = MemorySession(self, client_id, kept or _Kept(clean), will, session_present=kept is not None)
        self._kept[client_id], self._sessions[client_id] = session.kept, session
        async with bare_task_group() as tasks:
            tasks.start_soon(session.feed, deliver, name="kepm.memory.feed")
            try:
                yield session
            finally:
                session.leave()
                tasks.cancel_scope.cancel()

    def cut(self, client_id: str, reason: str = "the connection was cut", ending: Ending = "broken") -> None:
        """End a client's connection as a broken network does: its will is published, its kept session stays."""
        if (session := self._sessions.get(client_id)) is not None:
            session.cut(reason, ending)

    def kill(self) -> None:
        """End every connection without a will, forget everything, and refuse connections until `up` is set again."""
        self.up = False
        for session in list(self._sessions.values()):
            session.leave("the broker in memory was killed")
        self._kept.clear()
        self._retained.clear()

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

    def greet(self, client_id: str, kept: _Kept, topic_filter: str, qos: int) -> None:
        """Deliver what is retained to a new subscription."""
        for publication in self._retained.values():
            if matches(topic_filter, publication.topic):
                self._queue(client_id, kept, publication, min(qos, publication.qos), retained=True)

    def ended(self, client_id: str, kept: _Kept) -> None:
        """Forget a connection, and its session where it was clean."""
        del self._sessions[client_id]
        if kept.clean:
            self._kept.pop(client_id, None)
        kept.waiting.extendleft(reversed(kept.in_flight.values()))
        kept.in_flight.clear()

    def _queue(self, client_id: str, kept: _Kept, publication: Publication, qos: int, *, retained: bool) -> None:
        session = self._sessions.get(client_id)
        if session is None and qos == 0:
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
    certificate = ""
    in_flight_maximum = IN_FLIGHT

    def __init__(
        self, broker: MemoryBroker, client_id: str, kept: _Kept, will: Publication | None, *, session_present: bool
    ) -> None:
        self._broker, self._client_id, self.kept, self._will = broker, client_id, kept, will
        self.session_present = session_present
        self.reading_since = -math.inf
        self.ending: Ending = "broken"
        self.wake = anyio.Event()
        self._now = loop_clock()
        self._resumed = anyio.Event()
        self._finished: list[Callable[[], None]] = []
        self._ended = anyio.Event()
        self._reason = ""

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Subscribe; retained messages follow."""
        if not filters:
            raise ValueError("SUBSCRIBE needs at least one filter; send none at all")
        await self._turn()
        for topic_filter in filters:
            check_filter(topic_filter)
            self.kept.filters[topic_filter] = qos
            self._broker.greet(self._client_id, self.kept, topic_filter, qos)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions."""
        await self._turn()
        for topic_filter in filters:
            self.kept.filters.pop(topic_filter, None)

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Take acknowledgements."""
        if not self._ended.is_set():
            for mid in mids:
                self.kept.in_flight.pop(mid, None)
            self.wake.set()

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Deliver at once; acknowledge a moment later."""
        if self._ended.is_set():
            raise LinkLost(self._reason)
        self._broker.route(publication)
        if acknowledged is not None:
            self._finished.append(acknowledged)
            self.wake.set()

    def pause_reading(self) -> None:
        """Leave what comes, confirmations included, with the broker."""
        if self.reading_since < math.inf and not self._ended.is_set():
            self.reading_since, self._resumed = math.inf, anyio.Event()

    def resume_reading(self) -> None:
        """Take what has come meanwhile."""
        if self.reading_since == math.inf and not self._ended.is_set():
            self.reading_since = self._now()
            self._resumed.set()
            self.wake.set()

    async def lost(self) -> str:
        """Return when the connection is gone."""
        await self._ended.wait()
        return self._reason

    def cut(self, reason: str, ending: Ending = "broken") -> None:
        """End the connection without a goodbye."""
        if not self._ended.is_set():
            self.ending = ending
        will, self._will = self._will, None
        self.leave(reason)
        if will is not None:
            self._broker.route(will)

    def leave(self, reason: str = "disconnected") -> None:
        """End the connection with a goodbye, if it is there."""
        if not self._ended.is_set():
            self._reason = reason
            self._ended.set()
            self._resumed.set()
            self.wake.set()
            self._broker.ended(self._client_id, self.kept)

    async def feed(self, deliver: Deliver) -> None:
        """Hand over what waits, in batches, and acknowledgements."""
        while not self._ended.is_set():
            if self.reading_since == math.inf:
                await self._resumed.wait()
                continue
            finished, self._finished = self._finished, []
            for acknowledged in finished:
                acknowledged()
            if self._ended.is_set():  # One of them has cut it; what waits is the next session's.
                return
            batch = self.kept.next_batch()
            if batch:
                deliver(batch)
            if batch or finished:
                await anyio.lowlevel.checkpoint()
            else:
                self.wake = anyio.Event()
                await self.wake.wait()

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.reading_since == math.inf:
            await self._resumed.wait()
        if self._ended.is_set():
            raise LinkLost(self._reason)
