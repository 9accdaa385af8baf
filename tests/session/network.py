"""The broker in memory as the session's tests need it, and the wire to it, where packets are late, lost or doubled."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kepm_plugin.errors import AgentUnreachable, LinkLost
from kepm_plugin.link import Deliver
from kepm_plugin.message import Publication, Received
from kepm_plugin.testing import MemoryBroker
from kepm_plugin.topics import matches

if TYPE_CHECKING:
    from .process import Process

CLIENT = "P"


class Broker(MemoryBroker):
    """Numbers each delivery anew, also what it sends again, as MQTTnet does: a packet id belongs to one connection."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self.keeps = keeps
        """Whether it has sessions that outlive the connection, and itself."""
        self._ids = count(1)

    def offer(self, received: Received) -> bool:
        """Take a message for the plugin; False where it has no subscription for it, or is away and it is of QoS 0."""
        kept, session = self._kept.get(CLIENT), self._sessions.get(CLIENT)
        if kept is None or not any(matches(one, received.topic) for one in kept.filters):
            return False
        if session is None and not received.qos:
            return False
        kept.waiting.append(self._numbered(received))
        if session is not None:
            session.wake.set()
        return True

    def copy(self) -> Received | None:
        """Send what is in flight for the longest time once more, under an id of its own."""
        kept = self._kept.get(CLIENT)
        if kept is None or not kept.in_flight or CLIENT not in self._sessions:
            return None
        first = next(iter(kept.in_flight.values()))
        self.offer(first)
        return first

    def stop(self) -> None:
        """End as a process that was killed, with what it keeps on disk."""
        self.up = False
        self.cut(CLIENT, "the broker went away")

    def pending(self) -> list[Received]:
        """Return what was not acknowledged."""
        kept = self._kept.get(CLIENT)
        return [] if kept is None else [one for one in (*kept.in_flight.values(), *kept.waiting) if one.qos]

    def ended(self, client_id: str, kept: Any) -> None:
        """Forget a connection, and its packet ids."""
        super().ended(client_id, kept)
        kept.waiting = type(kept.waiting)(self._numbered(one) for one in kept.waiting if one.qos)

    def _numbered(self, received: Received) -> Received:
        return replace(received, mid=next(self._ids) if received.qos else 0)


class Wire:
    """One connection of a process. What is under way when it ends is lost."""

    version = "memory"
    certificate = ""
    in_flight_maximum = 3

    def __init__(self, process: "Process") -> None:
        self._process, self._ledger = process, process.world.ledger
        self._delivered: dict[int, int] = {}
        """Packet id -> number of the message, of what came and is not acknowledged."""
        self._settled: set[int] = set()
        self._under_way: list[Callable[[], None]] = []
        self._session: Any = None

    @asynccontextmanager
    async def open(self, deliver: Deliver, will: Publication | None) -> AsyncGenerator["Wire"]:
        """Connect."""
        world = self._process.world
        if not self._process.alive:
            raise AgentUnreachable("the process is dead")

        def delivered(batch: Sequence[Received]) -> None:
            if self._process.alive:
                self._deliver(batch, deliver)

        clean = not world.broker.keeps or self._process.kind.clean_session
        async with world.broker.connect(CLIENT, delivered, clean=clean, will=will) as self._session:
            self._process.wire = self
            try:
                yield self
            finally:
                self._under_way.clear()

    def _deliver(self, batch: Sequence[Received], deliver: Deliver) -> None:
        for received in batch:
            number = int(received.properties["number"])
            if received.mid:
                self._delivered[received.mid] = number
            self._ledger.delivered(number)
        try:
            deliver(batch)
        except Exception as exc:  # noqa: BLE001  it never raises
            self._ledger.complain(f"a delivery raised {exc!r}")

    @property
    def is_open(self) -> bool:
        """Whether the broker is at the other end."""
        return self._session is not None and not self._session._ended.is_set()

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Look whether each of them may be acknowledged here and now; send it."""
        if not self._process.alive or not mids:
            return
        self._process.boundary("before an acknowledgement")
        for mid in mids:
            if mid in self._settled:
                self._ledger.complain(f"packet {mid} was acknowledged twice")
            elif (number := self._delivered.pop(mid, None)) is None:
                self._ledger.complain(f"packet {mid} was acknowledged on a connection that never brought it")
            else:
                self._settled.add(mid)
                self._process.acknowledging(number)
                packet = partial(self._acknowledge, mid, number)
                self._send(packet, late=self._process.world.network == "slow")
        self._process.boundary("after an acknowledgement")

    def _acknowledge(self, mid: int, number: int) -> None:
        if self.is_open:
            self._ledger.sent[number].acknowledged = True
            self._session.acknowledge([mid])

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Send, as far as the wire carries it."""
        if not self._process.alive or not self.is_open:
            raise LinkLost("the connection is gone")
        self._process.boundary("before a publication")
        network = self._process.world.network
        packet = partial(self._publish, publication, None if network == "deaf" else acknowledged)
        self._send(packet, late=network in ("slow", "mute"))
        self._process.boundary("after a publication")

    def _publish(self, publication: Publication, acknowledged: Callable[[], None] | None) -> None:
        if self.is_open:
            self._session.publish(publication, acknowledged)

    def _send(self, packet: Callable[[], None], *, late: bool) -> None:
        if not self._process.alive:  # It has just been killed.
            return
        if late:
            self._under_way.append(packet)
        else:
            packet()

    def catch_up(self) -> None:
        """Carry what is under way."""
        packets, self._under_way = self._under_way, []
        for packet in packets:
            packet()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
