"""A lane: the messages of one handler on their way to it, in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from kepm_plugin.message import Received
from kepm_plugin.plugin import HandlerRoute

from ._call import Call

LIMIT = 1_000
"""Messages of one lane in memory; the journal holds the rest."""

LIMIT_BYTES = 16 * 2**20
"""Bytes of topics and payloads of one lane in memory, likewise; one message may go beyond."""

LOW = 200
"""Messages below which a lane is filled up again from the journal."""

LOW_BYTES = 4 * 2**20
"""Bytes below which it is."""


def size_of(received: Received) -> int:
    """Return about how many bytes a message takes, without what is the same for each."""
    return len(received.topic) + len(received.payload)


@dataclass(frozen=True, slots=True)
class Work:
    """One message that waits for its handler."""

    received: Received
    delivery: int = 1
    id: int | None = None
    """Its number in the journal, None where it is not there."""
    acknowledge: Callable[[Sequence[int]], None] | None = None
    """Where the acknowledgement comes after the handler: how to send it."""


class Lane:
    """Queue and slots of one handler.

    With `order_by` only the first message of each value is `ready`; the others are held back behind it.
    """

    def __init__(self, route: HandlerRoute, call: Call, decode: Callable[[bytes], Any], plugin_id: str) -> None:
        self.route, self.call, self.decode = route, call, decode
        self.slots = route.spec.concurrency
        self.running = 0
        """Calls in progress."""
        self.spilled_from: int | None = None
        """Number of the first message that is in the journal only."""
        self.overflowed = False
        """Whether messages were refused because there was no room."""
        self._plugin_id = plugin_id
        self._order_by = route.spec.handler.order_by
        self._ready: deque[Work] = deque()
        self._held: dict[str, deque[Work]] = {}
        self._size = self._bytes = 0
        self._closed = False
        self._wake = anyio.Event()

    def __len__(self) -> int:
        return self._size

    @property
    def full(self) -> bool:
        """Whether no further message should be kept in memory."""
        return self._size >= LIMIT or self._bytes >= LIMIT_BYTES

    @property
    def low(self) -> bool:
        """Whether there is room again for what lies in the journal."""
        return self._size < LOW and self._bytes < LOW_BYTES

    def params(self, topic: str) -> dict[str, str]:
        """Return the values of the topic's parameters."""
        pattern = self.route.spec.pattern
        return pattern.values(self._plugin_id, topic) if pattern.params else {}

    def put(self, work: Work) -> None:
        """Append a message and wake a worker."""
        self._size += 1
        self._bytes += size_of(work.received)
        if self._order_by is not None:
            behind = self._held.get(self._key(work))
            if behind is not None:
                behind.append(work)
                return
            self._held[self._key(work)] = deque()
        self._ready.append(work)
        self._wake.set()

    async def next(self) -> Work | None:
        """Return the next message, waiting for it; None once the lane is closed, whatever still waits."""
        while not self._ready and not self._closed:
            if self._wake.is_set():
                self._wake = anyio.Event()
            await self._wake.wait()
        return None if self._closed else self._ready.popleft()

    def close(self) -> None:
        """Let the workers end after what they are doing."""
        self._closed = True
        self._wake.set()

    def done(self, work: Work) -> None:
        """Let the next message with the same value go on."""
        self._size -= 1
        self._bytes -= size_of(work.received)
        if self._order_by is None:
            return
        key = self._key(work)
        behind = self._held[key]
        if behind:
            self._ready.append(behind.popleft())
            self._wake.set()
        else:
            del self._held[key]

    def forget_unacknowledged(self) -> None:
        """Drop what waits for its handler and is not acknowledged before."""
        waiting = list[Work]()
        for work in self._ready:
            waiting.append(work)
            if self._order_by is not None:
                waiting += self._held.pop(self._key(work))
        self._ready.clear()
        # What is left is behind a running call.
        for key, behind in self._held.items():
            waiting += behind
            self._held[key] = deque()
        for work in waiting:
            self._size -= 1
            self._bytes -= size_of(work.received)
            if work.acknowledge is None:
                self.put(work)

    def _key(self, work: Work) -> str:
        return self.params(work.received.topic)[self._order_by or ""]
