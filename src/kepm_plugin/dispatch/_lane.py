"""A lane: the messages of one handler on their way to it, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anyio
from msgspec import Struct, field

from kepm_plugin.message import Received
from kepm_plugin.plugin import HandlerRoute

from ._call import Call
from ._window import Seen

LIMIT = 1_000
"""Messages of one lane in memory; the journal holds the rest."""

LIMIT_BYTES = 16 * 2**20
"""Bytes of topics and payloads of one lane in memory, likewise; one message may go beyond."""

LOW = 200
"""Messages below which a lane is filled up again from the journal."""

LOW_BYTES = 4 * 2**20
"""Bytes below which it is."""


class Room(Struct):
    """How much each lane keeps in memory, and below what it is filled up again; one object for all lanes."""

    messages: int = field(default_factory=lambda: LIMIT)
    bytes: int = field(default_factory=lambda: LIMIT_BYTES)
    low: int = field(default_factory=lambda: LOW)
    low_bytes: int = field(default_factory=lambda: LOW_BYTES)

    def bound(self, messages: int, size: int) -> None:
        """Have other bounds from now on; what is there already stays."""
        self.messages, self.bytes = messages, size
        self.low, self.low_bytes = messages * LOW // LIMIT, size * LOW_BYTES // LIMIT_BYTES


def size_of(received: Received) -> int:
    """Return about how many bytes a message takes, without what is the same for each."""
    return len(received.topic) + len(received.payload)


class Work(Struct, eq=False):
    """One message that waits for its handler."""

    received: Received
    delivery: int = 1
    """Which delivery it is as far as runs of the process go; those of this run that are tried again do not count."""
    id: int | None = None
    """Its number in the journal, None where it is not there."""
    acknowledge: Callable[[Sequence[int]], None] | None = None
    """Where the acknowledgement comes after the handler: how to send it."""
    attempts: int = 0
    """How often its handler has failed."""
    due: float | None = None
    """Not to be tried before this time, in seconds since the epoch."""
    ticket: str | None = None
    """Given out for a later answer."""
    answered: bool = False
    """Its caller has the answer already, by the ticket."""
    deferred: bool = False
    """Its handler has ended and left the answer for later."""
    stored: bool = False
    """Its ticket is in the journal."""
    seen: Seen | None = None
    """Its entry in the window of identities, where it has an identity."""
    gone: bool = False
    """Taken out while it waited; its place in a queue is still to be cleared."""


class Lane:
    """Queue and slots of one handler.

    With `order_by` only the first message of each value is `ready`; the others are held back behind it. What is
    postponed keeps its place where order was promised: with one slot the whole lane waits for it, with `order_by` those
    of its value.
    """

    def __init__(
        self, route: HandlerRoute, call: Call, decode: Callable[[bytes], Any], plugin_id: str, room: Room
    ) -> None:
        self.route, self.call, self.decode = route, call, decode
        self.slots = route.spec.concurrency
        self.running = 0
        """Calls in progress."""
        self.spilled_from: int | None = None
        """Number of the first message that is in the journal only."""
        self._plugin_id, self._room = plugin_id, room
        self._has_params = bool(route.spec.pattern.params)
        self._order_by = route.spec.handler.order_by
        self._overflow = route.spec.handler.overflow
        self._ready: deque[Work] = deque()
        self._held: dict[str, deque[Work]] = {}
        self._postponed: dict[Work, None] = {}
        self._blocked = False
        self._droppable: dict[Work, None] = {}
        """What waits at QoS 0, oldest first."""
        self._newest: dict[str, Work] = {}
        """Of these, where they coalesce, the one of each topic."""
        self._size = self.bytes = 0
        self._closed = False
        self._wake = anyio.Event()

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        """Whether no further message should be kept in memory."""
        return self._size >= self._room.messages or self.bytes >= self._room.bytes

    @property
    def low(self) -> bool:
        """Whether there is room again for what lies in the journal, or at the broker."""
        return self._size < self._room.low and self.bytes < self._room.low_bytes

    def params(self, topic: str) -> dict[str, str]:
        """Return the values of the topic's parameters."""
        return self.route.spec.pattern.values(self._plugin_id, topic) if self._has_params else {}

    def put(self, work: Work) -> None:
        """Append a message and wake a worker."""
        self._size += 1
        self.bytes += size_of(work.received)
        if self._order_by is not None:
            behind = self._held.get(self._key(work))
            if behind is not None:
                behind.append(work)
                return
            self._held[self._key(work)] = deque()
        self._ready.append(work)
        self._wake.set()

    def put_or_drop(self, received: Received) -> int:
        """Append a message of QoS 0; return how many were dropped for it, itself included, as `overflow` says."""
        if self._overflow == "coalesce" and (waiting := self._newest.get(received.topic)) is not None:
            # In the older one's place, so that a topic which changes all the time is handled too.
            self.bytes += len(received.payload) - len(waiting.received.payload)
            waiting.received = received
            return 1
        dropped = 0
        # What lies in the journal is read back when there is room; a flood at QoS 0 must not keep it out.
        while self.full or (self.spilled_from is not None and self._size >= self._room.low // 2):
            oldest = next(iter(self._droppable), None)
            if self._overflow == "drop_new" or oldest is None:
                return dropped + 1
            self._take_out(oldest)
            dropped += 1
        work = Work(received)
        self._droppable[work] = None
        if self._overflow == "coalesce":
            self._newest[received.topic] = work
        self.put(work)
        return dropped

    async def next(self) -> Work | None:
        """Return the next message, waiting for it; None once the lane is closed, whatever still waits."""
        while not self._closed:
            if self._ready and not self._blocked:
                work = self._ready.popleft()
                if work.gone:
                    self._promote(work)
                    continue
                if not work.received.qos:
                    self._no_longer_waits(work)
                return work
            if self._wake.is_set():
                self._wake = anyio.Event()
            await self._wake.wait()
        return None

    def close(self) -> int:
        """Let the workers end after what they are doing; return how many messages of QoS 0 waited, and are lost."""
        self._closed = True
        self._wake.set()
        return len(self._droppable) + sum(1 for work in self._postponed if not work.received.qos)

    def done(self, work: Work) -> None:
        """Let the next message with the same value go on."""
        self._forget_size(work)
        self._promote(work)

    def postpone(self, work: Work) -> None:
        """Take a message back that was given out, until `resume`."""
        self._postponed[work] = None
        self._blocked = self._order_by is None and self.slots == 1

    def resume(self, work: Work) -> None:
        """Let a postponed message be the next one; nothing where it is forgotten."""
        if work in self._postponed:
            del self._postponed[work]
            self._blocked = False
            self._ready.appendleft(work)
            self._wake.set()

    def forget_unacknowledged(self) -> list[Work]:
        """Drop what waits for its handler and is not acknowledged before; return it."""
        waiting = [one for one in self._waiting() if one.acknowledge is not None]
        for work in waiting:
            self._take_out(work)
        postponed = [one for one in self._postponed if one.acknowledge is not None]
        for work in postponed:
            del self._postponed[work]
            self._blocked = False
            self.done(work)
        self._wake.set()
        return waiting + postponed

    def _waiting(self) -> Iterable[Work]:
        yield from (work for work in self._ready if not work.gone)
        for behind in self._held.values():
            yield from (work for work in behind if not work.gone)

    def _take_out(self, work: Work) -> None:
        """Drop a message that waits; what is behind it moves up when its turn would have come."""
        work.gone = True
        self._no_longer_waits(work)
        self._forget_size(work)

    def _no_longer_waits(self, work: Work) -> None:
        self._droppable.pop(work, None)
        if self._newest.get(work.received.topic) is work:
            del self._newest[work.received.topic]

    def _forget_size(self, work: Work) -> None:
        self._size -= 1
        self.bytes -= size_of(work.received)

    def _promote(self, work: Work) -> None:
        """Make the next message with the same value ready."""
        if self._order_by is None:
            return
        key = self._key(work)
        behind = self._held[key]
        while behind:
            if not (following := behind.popleft()).gone:
                self._ready.append(following)
                self._wake.set()
                return
        del self._held[key]

    def _key(self, work: Work) -> str:
        return self.params(work.received.topic)[self._order_by or ""]
