"""What is sent next and what is under way: order, the broker's limit, and what a loss puts back."""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from ..errors import LinkLost
from ._disk import Disk
from ._entry import Entry, Sends

log = logging.getLogger("kepm_plugin.outbox")

MAX_AGE = 300.0
"""Seconds after which a publication that waits in memory is dropped at a connect."""


class Pipeline:
    """The entries in memory, and those that were sent and not acknowledged. Belongs to the event loop's thread.

    What a lost session left goes first. Then come the others in the order in which they were put, whether they lie on
    disk or in memory.

    Attributes:
        count, size: Entries, and bytes of their payloads, that lie in memory alone.
        disk: The others; None where there is no file.
        dropped: Publications that were given up, since start.
        largest: Bytes of a payload on disk beyond which it is given up.
        max_age: Seconds after which what waits in memory is dropped at a connect.
    """

    def __init__(self, largest: int, moved: Callable[[], None]) -> None:
        """Make an empty one.

        Args:
            largest: Bytes of a payload beyond which it is given up.
            moved: Called when something was acknowledged or dropped.
        """
        self.largest, self._moved = largest, moved
        self.max_age = MAX_AGE
        self._first: deque[Entry] = deque()
        self._waiting: deque[Entry] = deque()
        self._in_flight: dict[Entry, None] = {}
        self._pumping = False
        self.count = self.size = 0
        self.disk: Disk | None = None
        self.session: Sends | None = None
        self.dropped = 0

    def __len__(self) -> int:
        on_disk = 0 if self.disk is None else len(self.disk)
        return len(self._first) + len(self._waiting) + len(self._in_flight) + on_disk

    def append(self, entry: Entry, *, first: bool = False) -> None:
        """Send an entry that lies in memory alone, in its turn, or before everything that waits."""
        self.count += 1
        self.size += len(entry.publication.payload)
        if self.disk is not None:
            entry.after = self.disk.last
        (self._first if first else self._waiting).append(entry)
        self.pump()

    def attach(self, session: Sends, now: float, *, anew: bool) -> int:
        """Send over a session from now on; returns how many entries were too old and are dropped.

        With `anew` none is, and for those in memory the time begins now.
        """
        dropped = 0
        if anew:
            for entry in (*self._first, *self._waiting):
                entry.since = now
        else:
            dropped = self._drop_old(now - self.max_age)
        self.session = session
        self.pump()
        self._moved()
        return dropped

    def _drop_old(self, oldest: float) -> int:
        expired = set[int]() if self.disk is None else self.disk.expire()
        dropped = len(expired)
        for queue in (self._first, self._waiting):
            for _ in range(len(queue)):
                entry = queue.popleft()
                if entry.id is None and entry.since < oldest:
                    self._forget(entry)
                    dropped += 1
                elif entry.id not in expired:
                    queue.append(entry)
        if dropped:
            log.warning("publications.too_old", extra={"count": dropped})
        self.dropped += dropped
        return dropped

    def detach(self) -> None:
        """Stop sending; what was not acknowledged goes first over the next session."""
        self.session = None
        self._first.extendleft(reversed(self._in_flight))
        self._in_flight = {}
        if self.disk is None:
            return
        # What could not be written before it was sent, and log records, which are written while there is no link.
        saved = [entry for entry in (*self._first, *self._waiting) if entry.id is None and entry.kind is not None]
        if saved:
            self._first = deque(entry for entry in self._first if entry.id is not None or entry.kind is None)
            self._waiting = deque(entry for entry in self._waiting if entry.kind is None)
            for entry in saved:
                self._forget(entry)
            self.disk.put_back(saved)

    def pump(self) -> None:
        """Send what may be sent now."""
        if self._pumping:  # A session may acknowledge at once, from inside `publish`.
            return
        self._pumping = True
        try:
            while (session := self.session) is not None and len(self._in_flight) < session.in_flight_maximum:
                entry = self._next()
                if entry is None:
                    break
                self._in_flight[entry] = None
                session.publish(entry.publication, partial(self._acknowledged, entry))
        except LinkLost as exc:
            log.debug("outbox.waiting", extra={"reason": str(exc)})
            self.detach()
        finally:
            self._pumping = False

    def _next(self) -> Entry | None:
        if self._first:
            return self._first.popleft()
        if self.disk is None:
            return self._waiting.popleft() if self._waiting else None
        if self._waiting and self._waiting[0].after < self.disk.next:
            return self._waiting.popleft()
        while (entry := self.disk.take()) is not None:
            if entry.id is None:  # It lies in memory alone from now on.
                self.count += 1
                self.size += entry.size
            elif entry.size > self.largest:
                self.give_up(entry)
                self.disk.sent(entry.id)
                continue
            break
        return entry

    def give_up(self, entry: Entry) -> None:
        """Say that an entry is too large for ever; whoever waits for it need not."""
        self.dropped += 1
        log.error("publication.too_large", extra={"topic": entry.publication.topic, "bytes": entry.size})
        if entry.acknowledged is not None:
            entry.acknowledged()

    def _forget(self, entry: Entry) -> None:
        self.count -= 1
        self.size -= len(entry.publication.payload)

    def _acknowledged(self, entry: Entry) -> None:
        # A late acknowledgement of an earlier session: the publication is queued again, and sent again.
        if entry not in self._in_flight:
            return
        del self._in_flight[entry]
        if entry.id is None:
            self.count -= 1
            self.size -= len(entry.publication.payload)
            entry.safe = True
            if entry.saved is not None:
                entry.saved()
        elif self.disk is not None:
            self.disk.sent(entry.id)
        if entry.acknowledged is not None:
            entry.acknowledged()
        self.pump()
        self._moved()
