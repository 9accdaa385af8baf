"""Publications that are kept until the broker has them: what the table holds, and how much of it."""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Final

from ..database import Connection, Database, insert
from ..message import Publication
from . import _tables as tables
from ._limits import Limits

PART: Final = 200
"""Publications that are read back at a time."""

PART_BYTES: Final = 4 * 2**20
"""Bytes of publications that are read back at a time; one more may go beyond."""

_TOGETHER: Final = 500
"""Ids in one statement; SQLite allows 999 in old versions."""


class Keep(IntEnum):
    """What a kept publication is. Answers are kept whatever there is; of the others there are limits to each."""

    ANSWER = 0
    PUBLICATION = 1
    RECORD = 2


def kept_size(publication: Publication) -> int:
    """Return about how many bytes a kept publication takes."""
    return tables.ROW + len(publication.payload) + len(publication.topic)


class Kept:
    """The table of publications. What is written in one commit with other tables takes the open connection.

    Attributes:
        totals: Count and bytes of each kind.
    """

    def __init__(self, database: Database, limits: Limits, now: Callable[[], float]) -> None:
        self._database, self.limits, self._now = database, limits, now
        # Held here, so that the question for room does not cost a scan.
        with database.read("read totals") as db:
            self.totals: dict[Keep, tuple[int, int]] = {
                Keep(kind): (count, size) for kind, count, size in db.execute(tables.KEPT_TOTALS)
            }

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(count for count, _ in self.totals.values())

    def last(self) -> int:
        """Return the highest id; 0 where there is none."""
        with self._database.read("read publications") as db:
            return int(db.execute(tables.KEPT_LAST).fetchone()[0])

    def has_room(self, kind: Keep, count: int, size: int) -> bool:
        """Tell whether so many more, of so many bytes together, are within the limits of a kind, which has some."""
        held, held_size = self.totals.get(kind, (0, 0))
        limits = self.limits
        if kind is Keep.RECORD:
            limit, limit_size = limits.records, limits.record_bytes
        else:
            limit, limit_size = limits.kept, limits.kept_bytes
        return held + count <= limit and held_size + size <= limit_size

    def exchange(self, batch: Sequence[tuple[Keep, Publication]], sent: Sequence[int]) -> list[int]:
        """Keep publications and forget others, in one commit; return the ids of the new ones, ascending.

        What was sent goes first: in a file that is full its pages are what the new ones lie on.
        """
        with self._database.commit("keep publications") as db:
            gone = self._remove(db, sent)
            ids = [self.insert(db, kind, publication) for kind, publication in batch]
        self._count(gone, -1)
        self.added(batch)
        return ids

    def insert(self, db: Connection, kind: Keep, publication: Publication) -> int:
        """Keep a publication in an open commit; return its id."""
        row = (kind, kept_size(publication), self._now(), *tables.publication_row(publication))
        return insert(db, tables.KEEP, row)

    def added(self, batch: Iterable[tuple[Keep, Publication]]) -> None:
        """Take publications into the totals, once the commit has succeeded."""
        self._count(((kind, 1, kept_size(publication)) for kind, publication in batch), 1)

    def read_from(self, id: int, limit: int = PART) -> list[tuple[int, Publication]]:  # noqa: A002
        """Return publications from a number on with their ids, oldest first: at least one where there is any."""
        found, size = list[tuple[int, Publication]](), 0
        with self._database.read("read publications") as db:
            for number, its_size, *row in db.execute(tables.KEPT, (id, limit)):
                found.append((number, tables.to_publication(row)))
                size += its_size
                if size >= PART_BYTES:
                    break
        return found

    def expire(self) -> list[int]:
        """Forget what is too old and no answer; return the ids, ascending. What has no known age stays."""
        ages = (tables.CLOCK_IS_SET, self._now() - self.limits.kept_age)
        with self._database.read("read old publications") as db:
            ids = [row[0] for row in db.execute(tables.KEPT_EXPIRED, (Keep.ANSWER, *ages))]
        if ids:
            self.exchange((), ids)
        return ids

    def _remove(self, db: Connection, ids: Sequence[int]) -> list[tuple[Keep, int, int]]:
        gone: list[tuple[Keep, int, int]] = []
        for start in range(0, len(ids), _TOGETHER):
            some = tuple(ids[start : start + _TOGETHER])
            among = f"WHERE id IN ({','.join('?' * len(some))})"
            counted = db.execute(f"SELECT kind, count(*), sum(size) FROM kept {among} GROUP BY kind", some)  # noqa: S608  marks only
            gone += [(Keep(kind), count, size) for kind, count, size in counted]
            db.execute(f"DELETE FROM kept {among}", some)  # noqa: S608  marks only
        return gone

    def _count(self, changes: Iterable[tuple[Keep, int, int]], sign: int) -> None:
        for kind, count, size in changes:
            held, held_size = self.totals.get(kind, (0, 0))
            self.totals[kind] = held + sign * count, held_size + sign * size
