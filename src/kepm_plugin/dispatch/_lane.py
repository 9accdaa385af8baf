"""A lane: the messages of one handler on their way to it, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import anyio
from msgspec import Struct, field

from kepm_plugin.message import Received
from kepm_plugin.plugin import HandlerRoute

from ._call import Call
from ._work import Work, size_of

Decode = Callable[[bytes], Any]
"""From a payload to what the handler takes."""

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


class Lane:
    """Queue and slots of one handler.

    With `order_by` only the first message of each value is `ready`; the others are held back behind it. What is
    postponed keeps its place where order was promised: with one slot the whole lane waits for it, with `order_by` those
    of its value.
    """

    # Without a dictionary each: a thousand of them take turns in the processor's cache.
    __slots__ = (
        "_blocked",
        "_closed",
        "_droppable",
        "_dropped",
        "_held",
        "_newest",
        "_order_by",
        "_overflow",
        "_plugin_id",
        "_postponed",
        "_ready",
        "_room",
        "_run",
        "_size",
        "_wake",
        "bytes",
        "call",
        "called",
        "decode",
        "dedupe",
        "handle",
        "has_params",
        "has_tasks",
        "is_command",
        "route",
        "running",
        "skips_retained",
        "slots",
        "spilled_from",
    )

    def __init__(
        self,
        route: HandlerRoute,
        handle: Callable[[Any], Any],
        call: Call | None,
        decode: Decode,
        plugin_id: str,
        room: Room,
        run: Callable[["Lane"], object],
    ) -> None:
        handler = route.spec.handler
        self.route, self.handle, self.call, self.decode = route, handle, call, decode
        self.is_command, self.dedupe = route.response is not None, handler.dedupe
        self.skips_retained = handler.retained == "skip"
        self.has_params = bool(route.spec.pattern.params)
        self.slots = route.spec.concurrency
        self.has_tasks = False
        """Tasks of its own wait in `next`; else `run` is called when there is something to `take`."""
        self.called = False
        """It was, and nothing was taken since."""
        self.running = 0
        """Calls in progress."""
        self.spilled_from: int | None = None
        """Number of the first message that is in the journal only."""
        self._plugin_id, self._room, self._run = plugin_id, room, run
        self._order_by, self._overflow = handler.order_by, handler.overflow
        self._ready: deque[Work] = deque()
        self._held: dict[str, deque[Work]] = {}
        self._postponed: dict[Work, None] = {}
        self._blocked = False
        self._droppable: deque[Work] | None = None
        """What waits at QoS 0, oldest first, and some that is gone; noted from when something has to be dropped."""
        self._dropped = 0
        """What was dropped and still has its place in a queue."""
        if self._order_by is not None:
            self._droppable = deque()  # from its queues one could not tell which is older
        self._newest: dict[str, Work] | None = {} if handler.overflow == "coalesce" else None
        """Where they coalesce, what waits at QoS 0 by topic."""
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
        return self.route.spec.pattern.values(self._plugin_id, topic) if self.has_params else {}

    def put(self, work: Work) -> None:
        """Append a message and wake a worker."""
        self._size += 1
        self.bytes += work.size
        if self._order_by is not None:
            behind = self._held.get(self._key(work))
            if behind is not None:
                behind.append(work)
                return
            self._held[self._key(work)] = deque()
        self._ready.append(work)
        if not self.called:
            self.rouse()

    def put_or_drop(self, received: Received) -> int:
        """Append a message of QoS 0; return how many were dropped for it, itself included, as `overflow` says."""
        if self._newest is not None and (waiting := self._newest.get(received.topic)) is not None:
            # In the older one's place, so that a topic which changes all the time is handled too.
            more = len(received.payload) - len(waiting.received.payload)
            self.bytes, waiting.size = self.bytes + more, waiting.size + more
            waiting.received = received
            return 1
        dropped = 0
        # What lies in the journal is read back when there is room; a flood at QoS 0 must not keep it out.
        while self.full or (self.spilled_from is not None and self._size >= self._room.low // 2):
            oldest = None if self._overflow == "drop_new" else self._oldest_droppable()
            if oldest is None:
                return dropped + 1
            self._take_out(oldest)
            dropped += 1
        work = Work(received, size_of(received))
        if self._droppable is not None:
            self._note_droppable(self._droppable, work)
        if self._newest is not None:
            self._newest[received.topic] = work
        self.put(work)
        return dropped

    def _oldest_droppable(self) -> Work | None:
        if self._droppable is None:
            self._droppable = deque(work for work in self._waiting() if not work.received.qos)
        while self._droppable:
            if not (work := self._droppable[0]).gone:
                return work
            self._droppable.popleft()
        return None

    def _note_droppable(self, droppable: deque[Work], work: Work) -> None:
        droppable.append(work)
        if len(droppable) > 2 * self._room.messages:
            self._droppable = deque(one for one in droppable if not one.gone)

    def rouse(self) -> None:
        """Have the next message taken, if there is one."""
        if self.has_tasks:
            self._wake.set()
        elif self._ready and not self.called:
            self.called = True
            self._run(self)

    def take(self) -> Work | None:
        """Return the next message; None where none is ready, or the lane is closed, whatever still waits."""
        while self._ready and not (self._blocked or self._closed):
            work = self._ready.popleft()
            if work.gone:
                self._dropped -= 1
                self._promote(work)
                continue
            work.gone = True
            if self._newest is not None:
                self._no_longer_newest(self._newest, work)
            return work
        return None

    async def next(self) -> Work | None:
        """Return the next message, waiting for it; None once the lane is closed."""
        while not self._closed:
            if (work := self.take()) is not None:
                return work
            if self._wake.is_set():
                self._wake = anyio.Event()
            await self._wake.wait()
        return None

    def close(self) -> int:
        """Let the workers end after what they are doing; return how many messages of QoS 0 waited, and are lost."""
        self._closed = True
        self._wake.set()
        return sum(1 for work in (*self._waiting(), *self._postponed) if not work.received.qos)

    def done(self, work: Work) -> None:
        """Let the next message with the same value go on."""
        self._size -= 1
        self.bytes -= work.size
        if self._order_by is not None:
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
            work.gone = False
            self._ready.appendleft(work)
            self.rouse()

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
        self.rouse()
        return waiting + postponed

    def _waiting(self) -> Iterable[Work]:
        yield from (work for work in self._ready if not work.gone)
        for behind in self._held.values():
            yield from (work for work in behind if not work.gone)

    def _take_out(self, work: Work) -> None:
        """Drop a message that waits; what is behind it moves up when its turn would have come."""
        work.gone = True
        if self._newest is not None:
            self._no_longer_newest(self._newest, work)
        self._size -= 1
        self.bytes -= work.size
        self._dropped += 1
        if self._dropped > self._size:
            self._clear_dropped()

    def _clear_dropped(self) -> None:
        """Clear the places of what was dropped: a flood may go on for longer than a call."""
        self._dropped = 0
        ready, self._ready = self._ready, deque[Work]()
        for behind in self._held.values():
            kept = [work for work in behind if not work.gone]
            behind.clear()
            behind.extend(kept)
        for work in ready:
            if work.gone:
                self._promote(work)
            else:
                self._ready.append(work)

    def _no_longer_newest(self, newest: dict[str, Work], work: Work) -> None:
        if newest.get(work.received.topic) is work:
            del newest[work.received.topic]

    def _promote(self, work: Work) -> None:
        """Make the next message with the same value ready."""
        if self._order_by is None:
            return
        key = self._key(work)
        behind = self._held[key]
        while behind:
            following = behind.popleft()
            if following.gone:
                self._dropped -= 1
            else:
                self._ready.append(following)
                self.rouse()
                return
        del self._held[key]

    def _key(self, work: Work) -> str:
        return self.params(work.received.topic)[self._order_by or ""]
