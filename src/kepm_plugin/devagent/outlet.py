"""What goes to one client's socket: at once, as slowly as a fault says, or not at all any more."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio

from kepm_plugin.devagent.delivery import Outgoing
from kepm_plugin.devagent.faults import Slow
from kepm_plugin.devagent.packets import PUBLISH

PENDING_MESSAGES: Final = 1_000
"""Publications that wait for one client in the embedded model: `MaxPendingMessagesPerClient`."""

STEPS: Final = 10
"""Pieces a second in which a slow connection carries its bytes."""


class Outlet:
    """Of a classic broker: what cannot be written yet waits.

    Attributes:
        frozen: Set: nothing is written any more.
    """

    def __init__(
        self, writer: asyncio.StreamWriter, slow: Callable[[], Slow | None], sent: Callable[[Outgoing], None]
    ) -> None:
        """Write to `writer`; `slow` is the fault in force, if any; `sent` is told of what was written."""
        self.frozen = False
        self._writer, self._slow, self._sent = writer, slow, sent
        self._held: deque[tuple[float, Outgoing]] = deque()  # with the time at which each may be written
        self._held_bytes = 0
        self._ready = bytearray()
        self._news = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Bytes that were not handed to the system yet."""
        return self._held_bytes + len(self._ready) + self._writer.transport.get_write_buffer_size()

    def put(self, packet: Outgoing) -> None:
        """Take a packet; it is written with the next `flush` at the latest, unless it must wait."""
        if self.frozen:
            return
        slow = self._slow()
        if slow is None and not self._held:
            self._ready += packet.data
            self._sent(packet)
            return
        self._held.append((anyio.current_time() + (slow.delay if slow else 0.0), packet))
        self._held_bytes += len(packet.data)
        self._news.set()

    def flush(self) -> None:
        """Write what need not wait."""
        if self._ready and not self.frozen and not self._writer.is_closing():
            self._writer.write(self._ready)
        self._ready = bytearray()

    def finish(self) -> None:
        """Write what had to wait, publications of the embedded model apart: the connection ends."""
        for _, packet in self._held:
            self._ready += packet.data
        self.flush()

    async def run(self) -> None:
        """Write what had to wait."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._held:
                due, packet = self._held[0]
                await self._write_at(due, packet)
                self._held.popleft()
                self._held_bytes -= len(packet.data)

    async def _write_at(self, due: float, packet: Outgoing) -> None:
        """Write one packet when it is due, in pieces, as fast as the fault in force lets it."""
        if (wait := due - anyio.current_time()) > 0:
            await anyio.sleep(wait)
        self._sent(packet)
        rest = packet.data
        while rest and not self.frozen and not self._writer.is_closing():
            slow = self._slow()
            rate = slow.bytes_per_second if slow is not None else None
            size = len(rest) if rate is None else max(1, int(rate / STEPS))
            self._writer.write(rest[:size])
            if rate is not None:
                await anyio.sleep(min(size, len(rest)) / rate)
            rest = rest[size:]


class Queue(Outlet):
    """Of the embedded model: a queue of 1,000 publications that drops the oldest *unread* one, QoS 1 and 2 included.

    Unread is a publication that was not yet handed to the client's socket, because the client does not read what was
    handed to it before: its receive window and the system's send buffer are full, and so are some 128 KiB of the gate's
    own (the TLS transport's, and what the engine sent in one go). What the socket has taken is not in the queue any
    more, acknowledged or not, read by the client's program or not. The one that is being written does not count, and
    is never dropped.

    Other packets (acknowledgements, answers) have a queue of their own without such a limit; the two take turns.
    """

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        slow: Callable[[], Slow | None],
        sent: Callable[[Outgoing], None],
        dropped: Callable[[], None],
    ) -> None:
        super().__init__(writer, slow, sent)
        self._dropped = dropped
        self._publications: deque[tuple[float, Outgoing]] = deque()
        self._writing = False
        writer.transport.set_write_buffer_limits(high=1, low=0)  # drain returns when the transport holds nothing

    def put(self, packet: Outgoing) -> None:
        """Take a packet, and drop the oldest publication where too many wait."""
        slow = self._slow()
        if slow is None and self._takes():
            self._ready += packet.data
            self._sent(packet)
            return
        due = anyio.current_time() + (slow.delay if slow else 0.0)
        if packet.kind == PUBLISH:
            if len(self._publications) >= PENDING_MESSAGES:
                self._publications.popleft()
                self._dropped()
            self._publications.append((due, packet))
        elif not self.frozen:
            self._held.append((due, packet))
            self._held_bytes += len(packet.data)
        self._news.set()

    def _takes(self) -> bool:
        """Tell whether the socket takes what comes, with nothing before it that waits."""
        waits = self.frozen or self._writing or self._held or self._publications
        return not waits and not self._writer.transport.get_write_buffer_size()

    async def run(self) -> None:
        """Write one packet after the other, each when the socket has taken the one before."""
        turn = False
        while True:
            if self.frozen or not (self._held or self._publications):
                self._news.clear()
                await self._news.wait()
                continue
            turn = not turn
            if self._held and (turn or not self._publications):
                due, packet = self._held[0]
                await self._write_at(due, packet)
                self._held.popleft()  # now, so that `finish` finds it where the connection ends meanwhile
                self._held_bytes -= len(packet.data)
            else:
                self._writing = True
                await self._write_at(*self._publications.popleft())
                self._writing = False
            await self._writer.drain()
