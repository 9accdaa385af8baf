"""Where log records wait: a bounded pipe that never blocks who writes, and the stream for people at its side.

Knows bytes, lines and flat events, not loggers.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, TextIO

from kepm_plugin.records import FlatEvent, attempt

__all__ = ["Fallback", "LogPipe"]

RECORDS: Final = 5000
SIZE: Final = 4 * 1024 * 1024  # bytes; about an hour of a talkative plugin without a link
_FLAT: Final = 256  # flat events that are not records yet; each has 1,000 characters at most, besides small numbers
_LINES: Final = 1000
_BATCH: Final = 100
_LAST_WORDS: Final = 1.0  # seconds that the end waits for a stream that nobody reads


def _plain_notice(dropped: int) -> bytes:
    return f'{{"message":"{dropped} records dropped"}}'.encode()


def _no_flat(events: Sequence[FlatEvent]) -> Sequence[bytes | None]:
    return [None] * len(events)


class LogPipe:
    """Records in order, bounded by count and by bytes; where it is full, the oldest goes.

    A flat event becomes a record when the reader comes, or the next record, or too many of them wait.

    `put` and `put_flat` may be called from any thread, from a signal handler, and from a destructor while this very
    thread is inside of one of them or of `take`. `take` is for one reader.

    Attributes:
        dropped: How many records were lost so far.
        make_flat: Makes the records of flat events; None for one that it cannot make.
        notice: Makes the record that tells of that many lost ones. It goes out before the next record.
    """

    def __init__(
        self, *, records: int = RECORDS, size: int = SIZE, notice: Callable[[int], bytes] = _plain_notice
    ) -> None:
        self.dropped = 0
        self.notice = notice
        self._records, self._size = records, size
        self.make_flat: Callable[[Sequence[FlatEvent]], Sequence[bytes | None]] = _no_flat
        self._arrived: deque[bytes | FlatEvent] = deque()  # appending is atomic; whoever has the lock moves it on
        self._lost: deque[None] = deque()  # one for each record that never got here
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._untold = 0
        self._wake: Callable[[], object] | None = None
        self._is_woken = False  # the reader will come
        self._lock = threading.Lock()

    def bound(self, *, records: int, size: int) -> None:
        """Have other bounds from now on; where more is there, the oldest go when the next one comes."""
        self._records, self._size = records, size

    def put(self, record: bytes) -> None:
        """Add a record; never blocks and never raises."""
        self._arrived.append(record)
        self._settle()
        self._announce()

    def put_flat(self, event: FlatEvent) -> None:
        """Add a flat event; never blocks and never raises."""
        self._arrived.append(event)
        if len(self._arrived) >= _FLAT:
            self._settle()
        if not self._is_woken:
            self._announce()

    def settle(self) -> None:
        """Make the records of the flat events that are there."""
        self._settle()

    def lose(self) -> None:
        """Count a record that could not be made."""
        self._lost.append(None)
        self._settle()
        self._announce()

    def take(self, limit: int) -> list[bytes]:
        """Return the oldest records, at most `limit`; an empty list says that there are none."""
        taken: list[bytes] = []
        with self._lock:
            self._is_woken = False  # first: what comes from now on may not be seen below
            self._move()
            if self._untold and limit > 0:
                untold, self._untold = self._untold, 0
                taken.append(attempt(lambda: self.notice(untold), _plain_notice(untold)))
            while self._queue and len(taken) < limit:
                taken.append(self._queue.popleft())
                self._bytes -= len(taken[-1])
            if self._queue:
                self._is_woken = True  # and comes again
        self._settle()  # what arrived meanwhile found the lock taken
        return taken

    def wake(self, callback: Callable[[], object] | None) -> None:
        """Register what is called, from any thread, when the pipe turns non-empty; right away where it is not.

        So take until the list is empty; what comes after that is announced again.
        """
        self._wake, self._is_woken = callback, False
        if self._queue or self._untold or self._arrived:
            self._announce()

    def _announce(self) -> None:
        if not self._is_woken and (wake := self._wake):
            self._is_woken = True
            attempt(wake, None)

    def _settle(self) -> None:
        # Nobody waits for the lock: who has it looks again after giving it back.
        while (self._arrived or self._lost) and self._lock.acquire(blocking=False):
            try:
                self._move()
            finally:
                self._lock.release()

    def _move(self) -> None:
        while self._lost:
            self._lost.pop()
            self._drop()
        while arrived := [self._arrived.popleft() for _ in range(len(self._arrived))]:
            records = self._made(arrived)
            self._drop(len(arrived) - len(records))
            self._queue.extend(records)
            self._bytes += sum(map(len, records))
            while len(self._queue) > self._records or self._bytes > self._size:
                self._bytes -= len(self._queue.popleft())
                self._drop()

    def _made(self, arrived: Sequence[bytes | FlatEvent]) -> list[bytes]:
        """Return the records that there are, or can be made."""
        records = [one for one in arrived if isinstance(one, bytes)]
        if len(records) == len(arrived):
            return records
        none: Sequence[bytes | None] = ()
        flat = [one for one in arrived if not isinstance(one, bytes)]
        made = iter(attempt(lambda: self.make_flat(flat), none))
        told = (one if isinstance(one, bytes) else next(made, None) for one in arrived)
        return [record for record in told if record is not None]

    def _drop(self, count: int = 1) -> None:
        self.dropped += count
        self._untold += count


class Fallback:
    """Lines on a stream for people, written by a thread of its own: a stream that nobody reads blocks its writer.

    `is_on` says whether lines are wanted; a terminal always wants them. Without a stream, as in a windowed build, and
    where it is broken, lines are lost without a word.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.is_on = True
        self._given = stream
        self._plain: TextIO | None = None  # the stream that was found to be no terminal
        self._lines = LogPipe(records=_LINES, notice=lambda dropped: f"({dropped} lines dropped)\n".encode())
        self._something = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._write_all, name="kepm.logs.fallback", daemon=True)

    @contextmanager
    def writing(self) -> Generator[None]:
        """Write what is put, until the end; then what is left, for a bounded time."""
        self._lines.wake(self._something.set)
        self._thread.start()
        try:
            yield
        finally:
            self._ending = True
            self._something.set()
            self._thread.join(_LAST_WORDS)

    @property
    def has_reader(self) -> bool:
        """Whether there is a stream. For its own thread there is none: a stream may log what is written to it."""
        return self._stream is not None and threading.get_ident() != self._thread.ident

    @property
    def is_wanted(self) -> bool:
        """Whether lines are wanted now."""
        if not self.is_on:  # as long as the link is up, at each log call
            stream = self._stream
            if stream is self._plain or stream is None:
                return False
            if not attempt(stream.isatty, False):
                self._plain = stream
                return False
        return self.has_reader

    def put(self, line: str) -> None:
        """Add a line, given without its end; never blocks and never raises."""
        self._lines.put(line.encode("utf-8", "replace") + b"\n")

    @property
    def _stream(self) -> TextIO | None:
        return self._given or sys.stderr  # looked up each time: somebody may have replaced it

    def _write_all(self) -> None:
        while not self._ending:
            self._something.wait()
            self._something.clear()
            while lines := self._lines.take(_BATCH):
                attempt(partial(self._write, b"".join(lines)), None)

    def _write(self, text: bytes) -> None:
        stream = self._stream
        if stream is None:
            return
        descriptor = -1 if stream.isatty() else attempt(stream.fileno, -1)
        if descriptor < 0:
            stream.write(text.decode("utf-8", "replace"))
            stream.flush()
            return
        # Not through the stream's buffer: a daemon thread that is stuck with its lock aborts the interpreter's end.
        while text:
            text = text[os.write(descriptor, text) :]
