"""Dead letters: messages that no handler could do, with the reason, bounded in number and size."""

from collections.abc import Callable
from dataclasses import dataclass

from ..database import Connection, Database, insert
from ..message import Received
from . import _tables as tables


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that no handler could do. `buried_at` is in seconds since the epoch."""

    id: int
    received: Received
    reason: str
    details: str
    buried_at: float


@dataclass(frozen=True, slots=True)
class Burial:
    """A letter that is about to be written, and the older ones that have to go for it."""

    size: int
    dropped: tuple[int, ...]
    total: int
    """Bytes of all letters afterwards."""


class DeadLetters:
    """The table of letters."""

    def __init__(self, database: Database, limit: int, limit_bytes: int, now: Callable[[], float]) -> None:
        self._database, self._limit, self._limit_bytes, self._now = database, limit, limit_bytes, now
        # Held here, so that a flood of letters does not cost a scan for each.
        with database.read("read totals") as db:
            self._sizes: dict[int, int] = dict(db.execute(tables.DEAD_SIZES))
        self._bytes = sum(self._sizes.values())

    def prepare(self, received: Received, reason: str, details: str) -> Burial:
        """Find out what has to go for a letter: the oldest ones; the newest stays however large it is."""
        size = tables.size_of(received) + len(reason) + len(details)
        total, dropped = self._bytes + size, list[int]()
        for oldest, its_size in self._sizes.items():
            if len(self._sizes) - len(dropped) < self._limit and total <= self._limit_bytes:
                break
            dropped.append(oldest)
            total -= its_size
        return Burial(size, tuple(dropped), total)

    def bury(self, db: Connection, burial: Burial, received: Received, reason: str, details: str) -> int:
        """Write a letter in an open commit; return its id."""
        letter = insert(db, tables.BURY, (reason, details, self._now(), burial.size, *tables.to_row(received)))
        if burial.dropped:
            db.executemany("DELETE FROM dead WHERE id = ?", [(old,) for old in burial.dropped])
            db.execute(tables.COUNT, (len(burial.dropped),))
        return letter

    def buried(self, burial: Burial, letter: int) -> None:
        """Note a letter, once the commit has succeeded."""
        self._sizes[letter], self._bytes = burial.size, burial.total
        for old in burial.dropped:
            del self._sizes[old]

    def all(self) -> list[DeadLetter]:
        """Return the letters, oldest first."""
        with self._database.read("read dead letters") as db:
            return [
                DeadLetter(number, tables.from_row(message), reason, details, buried_at)
                for number, reason, details, buried_at, *message in db.execute(tables.DEAD)
            ]

    def dropped(self) -> int:
        """Return how many letters had to go for newer ones, over all runs."""
        with self._database.read("read a counter") as db:
            row = db.execute(tables.DROPPED).fetchone()
        return int(row[0]) if row else 0
