"""Dead letters: messages that no handler could do, with the reason, bounded in number, size and age."""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from ..database import Connection, Database, insert
from ..message import Received
from . import _tables as tables
from ._limits import Limits


class DeadLetter(Struct, frozen=True):
    """A message that no handler could do. `buried_at` is in seconds since the epoch."""

    id: int
    received: Received
    reason: str
    details: str
    buried_at: float
    deliveries: int | None
    """How often its handler had it, as far as the journal knows; None where the message was not in it."""


class _Kept(Struct, frozen=True):
    id: int
    size: int
    buried_at: float


class Burial(Struct, frozen=True):
    """A letter that is written, and how many older ones have gone for it."""

    letter: _Kept
    gone: int


class DeadLetters:
    """The table of letters, as the plugin sees it."""

    def __init__(self, database: Database, limits: Limits, now: Callable[[], float]) -> None:
        self._database, self.limits, self._now = database, limits, now
        # Held here, so that a flood of letters does not cost a scan for each, and a report no read at all.
        self._kept: deque[_Kept]
        self._bytes: int
        self.dropped: int
        """How many letters had to go for newer ones or for their age, over all runs."""
        with database.read("read totals") as db:
            self._read(db)

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, db: Connection) -> None:
        self._version = self._database.foreign_version()
        self._kept = deque(_Kept(*row) for row in db.execute(tables.DEAD_SIZES))
        self._bytes = sum(letter.size for letter in self._kept)
        row = db.execute(tables.DROPPED).fetchone()
        self.dropped = int(row[0]) if row else 0

    def refresh(self) -> None:
        """Take note of what commands have done."""
        with self._database.read("read totals") as db:
            self._read(db)

    def drop_old(self) -> None:
        """Drop the letters that are too old.

        Raises:
            StoreError: They could not be dropped.
        """
        limits = self.limits
        if self._count_beyond(limits.dead_letters, limits.dead_letter_bytes):
            with self._database.commit("drop old dead letters") as db:
                self._catch_up(db)
                count = self._count_beyond(limits.dead_letters, limits.dead_letter_bytes)
                self._drop(db, count)
            self._forget(count)

    def bury(
        self,
        db: Connection,
        received: Received,
        reason: str,
        details: str,
        deliveries: int | None,
    ) -> Burial:
        """Write a letter in an open commit, and drop what has to go for it: the oldest ones; the newest stays."""
        self._catch_up(db)
        size, now = tables.size_of(received) + len(reason) + len(details), self._now()
        gone = self._count_beyond(self.limits.dead_letters - 1, self.limits.dead_letter_bytes - size)
        row = (reason, details, now, deliveries, size, *tables.to_row(received))
        letter = insert(db, tables.BURY, row)
        self._drop(db, gone)
        return Burial(_Kept(letter, size, now), gone)

    def buried(self, burial: Burial) -> None:
        """Note a letter, once the commit has succeeded."""
        self._forget(burial.gone)
        self._kept.append(burial.letter)
        self._bytes += burial.letter.size

    def _catch_up(self, db: Connection) -> None:
        if self._database.foreign_version() != self._version:
            self._read(db)

    def _count_beyond(self, most: int, most_bytes: int) -> int:
        """Return how many of the oldest have to go, so that no more than so many are left, and none too old."""
        count, total, too_old = 0, self._bytes, self._now() - self.limits.dead_letter_age
        for number, letter in enumerate(self._kept):
            its_age_is_known = letter.buried_at > tables.CLOCK_IS_SET
            if (
                len(self._kept) - number > most
                or total > most_bytes
                or (its_age_is_known and letter.buried_at < too_old)
            ):
                count = number + 1
            elif its_age_is_known:
                break
            total -= letter.size
        return count

    def _drop(self, db: Connection, count: int) -> None:
        if count:
            db.execute("DELETE FROM dead WHERE id <= ?", (self._kept[count - 1].id,))
            db.execute(tables.COUNT, (count,))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._kept.popleft().size
        self.dropped += count

    def all(self) -> list[DeadLetter]:
        """Return the letters, oldest first."""
        with self._database.read("read dead letters") as db:
            return [letter_of(row) for row in db.execute(tables.DEAD)]


def letter_of(row: tuple[Any, ...]) -> DeadLetter:
    """Make a letter of a row of `tables.DEAD`."""
    number, reason, details, buried_at, deliveries, *message = row
    return DeadLetter(number, tables.from_row(message), reason, details, buried_at, deliveries)
