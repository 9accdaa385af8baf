"""What of the outbox lies on disk: written in batches, read back in order, a window of it in memory.

All that is put in one turn of the event loop is written in one commit, and in the same commit everything is forgotten
that the broker has acknowledged meanwhile. While the file cannot be written, entries wait in memory for the next try, a
second later; those for which it is their turn are sent from there.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import anyio

from ..errors import StoreError
from ..message import Publication
from ..store import PART, Keep, Store, kept_size
from ._entry import Entry

WINDOW = 1_000
"""Publications on disk that lie in memory too, and are sent next."""

WINDOW_BYTES = 16 * 2**20
"""Bytes of their payloads; one more may go beyond."""

BATCH = 500
"""Publications in one commit: it holds up the event loop."""

BATCH_BYTES = 4 * 2**20
"""Bytes of their payloads; one more may go beyond."""

RETRY = 1.0
"""Seconds between two tries while the file cannot be used."""


class Disk:
    """The entries that have a number, or wait for one. Belongs to the event loop's thread."""

    def __init__(
        self,
        store: Store,
        trouble: Callable[[str | None], object],
        moved: Callable[[], None],
        *,
        limit: int,
        size: int,
    ) -> None:
        """Take up what an earlier run left.

        Args:
            store: The file.
            trouble: Told why it cannot be used, and None when it can again.
            moved: Called when there may be something to send, or room.
            limit: Publications that may wait in memory for being written.
            size: Bytes of their payloads.
        """
        self._store, self._trouble, self._moved, self.limit, self.size = store, trouble, moved, limit, size
        self._window: deque[Entry] = deque()
        self._window_bytes = 0
        self._unread = store.kept_count()  # of those on disk that are not in memory
        self._unread_from: int = 1  # their lowest number, or less
        self._unreadable = False  # it went wrong since the last attempt
        self._callbacks: dict[int, Callable[[], None]] = {}  # of those that are not in memory
        self._unwritten: deque[Entry] = deque()
        self._unwritten_bytes = 0  # of their payloads
        self._counts, self._sizes = dict.fromkeys(Keep, 0), dict.fromkeys(Keep, 0)  # of those, as they will be on disk
        self._sent: list[int] = []
        self._work = anyio.Event()
        self.attempt = anyio.Event()
        """Set by the next attempt to write, whatever comes of it."""
        self.failing = ""
        """Why the last attempt to use the file went wrong; empty where it did not."""
        self.last: int = store.kept_last()
        """The highest number so far."""

    def __len__(self) -> int:
        return len(self._window) + self._unread + len(self._unwritten)

    @property
    def unwritten(self) -> int:
        """How many wait for being written."""
        return len(self._unwritten)

    @property
    def next(self) -> float:
        """The number of the entry that is sent next; none that is there has a lower one."""
        if self._window:
            return self._window[0].id or 0
        return self._unread_from if self._unread else math.inf

    def has_room(self, kind: Keep, publication: Publication) -> bool:
        """Tell whether one more is within the limits: of its kind on disk, and of all that wait in memory."""
        if len(self._unwritten) >= self.limit or self._unwritten_bytes + len(publication.payload) > self.size:
            return False
        return self._store.has_room(kind, self._counts[kind] + 1, self._sizes[kind] + kept_size(publication))

    def held(self, kind: Keep) -> tuple[int, int]:
        """Return how many there are of a kind, and how many bytes."""
        count, size = self._store.kept_of(kind)
        return count + self._counts[kind], size + self._sizes[kind]

    def put(self, entry: Entry) -> None:
        """Have an entry written with the next commit."""
        self._unwritten.append(entry)
        self._weigh(entry, 1)
        self._work.set()

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Have entries written that were sent, or about to be, without being on disk; they come first."""
        for entry in reversed(list(entries)):
            self._unwritten.appendleft(entry)
            self._weigh(entry, 1)
        self._work.set()

    def add(self, entry: Entry) -> None:
        """Take an entry that has just got its number."""
        self.last = entry.id or 0
        if not self._unread and len(self._window) < WINDOW and self._window_bytes < WINDOW_BYTES:
            self._window.append(entry)
            self._window_bytes += entry.size
            return
        if not self._unread:
            self._unread_from = self.last
        self._unread += 1
        if entry.acknowledged is not None:
            self._callbacks[self.last] = entry.acknowledged

    def take(self) -> Entry | None:
        """Return the entry that is sent next; None where there is none, or it cannot be read."""
        if not self._window and not self._unreadable:
            self._attempt(self._read)
        if self._window:
            entry = self._window.popleft()
            self._window_bytes -= entry.size
            return entry
        if self.failing and self._unwritten and not self._unread:
            entry = self._unwritten.popleft()
            self._weigh(entry, -1)
            return entry
        return None

    def sent(self, id: int) -> None:  # noqa: A002
        """Have an entry forgotten with the next commit."""
        self._sent.append(id)
        self._work.set()

    def expire(self) -> set[int]:
        """Forget what is too old, and return the numbers. Nothing may be in flight."""
        self.write_all()  # What is acknowledged and not yet forgotten is not too old.
        ids: set[int] = set()
        if not self.failing:
            self._attempt(lambda: ids.update(self._store.expire()))
        if ids:
            self._unread -= sum(1 for id in ids if id >= self._unread_from) if self._unread else 0  # noqa: A001
            self._window = deque(entry for entry in self._window if entry.id not in ids)
            self._window_bytes = sum(entry.size for entry in self._window)
            for id in ids:  # noqa: A001
                self._callbacks.pop(id, None)
            self._work.set()
        return ids

    async def run(self) -> None:
        """Write and read, without end."""
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            while not self._try():  # noqa: ASYNC110  no event tells that a disk has room
                await anyio.sleep(RETRY)

    def write_all(self) -> None:
        """Write now what can be written."""
        while (self._unwritten or self._sent) and self._try():
            pass

    def _try(self) -> bool:
        """Write a batch, read a part; tell whether the file could be used."""
        before, self.failing, self._unreadable = self.failing, "", False
        self._attempt(self._write)
        self._attempt(self._read)  # A disk that is full can still be read.
        if before and not self.failing:
            self._trouble(None)
        self.attempt.set()
        self.attempt = anyio.Event()
        self._moved()
        return not self.failing

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except StoreError as exc:
            self.failing = str(exc)
            self._work.set()
            self._trouble(self.failing)

    def _write(self) -> None:
        batch, size = list[Entry](), 0
        for entry in islice(self._unwritten, BATCH):
            if size >= BATCH_BYTES:
                break
            batch.append(entry)
            size += entry.size
        rows = [(entry.kind or Keep.PUBLICATION, entry.publication) for entry in batch]
        ids = self._store.keep(rows, self._sent)
        self._sent = []
        for entry, number in zip(batch, ids, strict=True):
            entry.id = number
            self._unwritten.popleft()
            self._weigh(entry, -1)
            self.add(entry)
            entry.safe = True
            if entry.saved is not None:
                entry.saved()
        if self._unwritten:
            self._work.set()

    def _read(self) -> None:
        """Fill at least half of the window, once it is empty."""
        if self._window:
            return
        self._unreadable = True
        while self._unread and len(self._window) <= WINDOW // 2 and self._window_bytes <= WINDOW_BYTES // 2:
            rows = self._store.kept(self._unread_from, PART)
            for number, publication in rows:
                self._window.append(self._entry(number, publication))
                self._window_bytes += len(publication.payload)
                self._unread_from = number + 1
            self._unread = self._unread - len(rows) if rows else 0
        self._unreadable = False

    def _entry(self, number: int, publication: Publication) -> Entry:
        return Entry(publication, 0.0, acknowledged=self._callbacks.pop(number, None), id=number, safe=True)

    def _weigh(self, entry: Entry, sign: int) -> None:
        kind = entry.kind or Keep.PUBLICATION
        self._unwritten_bytes += sign * entry.size
        self._counts[kind] += sign
        self._sizes[kind] += sign * kept_size(entry.publication)
