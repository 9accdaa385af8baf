"""The plugin's file: received messages until they are done, publications until they are sent, dead letters.

One SQLite database, `plugin.db`, in a folder that only its owner can read. Every change is one commit, made on the
caller's thread (16 microseconds in WAL mode). `synchronous=NORMAL`: what was committed survives `kill -9`; a power cut
may take the last commits. Knows nothing of handlers, sessions or clocks other than the one it is given.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..database import Connection, Database, insert, memory_database, open_database
from ..errors import StoreError
from ..folder import make_private
from ..message import Publication, Received
from . import _tables as tables

FILE: Final = "plugin.db"

PART: Final = 200
"""Messages that are read back at a time."""

PART_BYTES: Final = 4 * 2**20
"""Bytes of messages that are read back at a time; one more message may go beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large the file may grow; one drain, or one dead letter, may go beyond, so that size alone loses nothing."""

    journal_bytes: int = 64 * 2**20
    dead_letters: int = 1_000
    dead_letter_bytes: int = 16 * 2**20


DEFAULT: Final = Limits()


@dataclass(frozen=True, slots=True)
class Journalled:
    """A received message that is on disk and not done yet.

    `delivery` is which delivery to its handler the next one is: 1 in the run that received it, at least 2 afterwards.
    The packet identifier of a message from an earlier run is 0: its session is gone.
    """

    id: int
    received: Received
    delivery: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that no handler could do. `buried_at` is in seconds since the epoch."""

    id: int
    received: Received
    reason: str
    details: str
    buried_at: float


class Store:
    """The open file. Belongs to the thread that opened it.

    Every method that writes raises `StoreError` when it could not, and has then changed nothing.
    """

    def __init__(self, database: Database, limits: Limits, now: Callable[[], float]) -> None:
        self._database, self._limits, self._now = database, limits, now
        # Held here, so that neither a full journal nor a flood of dead letters costs a scan per message.
        self._count: int
        self._bytes: int
        with database.read("read totals") as db:
            self._count, self._bytes, self._inherited = db.execute(tables.TOTALS).fetchone()
            self._dead: dict[int, int] = dict(db.execute(tables.DEAD_SIZES))
        self._dead_bytes = sum(self._dead.values())

    def journal(self, batch: Sequence[Received]) -> list[Journalled]:
        """Write what was read in one drain, in one commit, and return it with ascending ids.

        Raises:
            StoreError: It could not be written, or the journal is full. The messages must not be acknowledged.
        """
        if not batch:
            return []
        if self._bytes >= self._limits.journal_bytes:
            raise StoreError(
                f"the journal holds {self._count} messages and is full ({self._bytes} bytes); nothing more "
                "is acknowledged until handlers have caught up: make them quicker, or give them more `concurrency`"
            )
        sizes = [tables.size_of(received) for received in batch]
        with self._database.commit("journal messages") as db:
            ids = [
                insert(db, tables.JOURNAL, (1, size, *tables.to_row(received)))
                for received, size in zip(batch, sizes, strict=True)
            ]
        self._count += len(ids)
        self._bytes += sum(sizes)
        return [Journalled(number, received, 1) for number, received in zip(ids, batch, strict=True)]

    def unfinished(self, after: int = 0) -> list[Journalled]:
        """Return the next few messages that an earlier run left behind a number, in the order of arrival."""
        return [row for row in self.read_from(after + 1, PART) if row.id <= self._inherited]

    def read_from(self, id: int, limit: int) -> list[Journalled]:  # noqa: A002
        """Return messages of the journal from a number on, in the order of arrival.

        At least one where there is any, at most `limit`, and no more once they have `PART_BYTES`.
        """
        found, size = list[Journalled](), 0
        with self._database.read("read the journal") as db:
            for number, begun, its_size, *message in db.execute(tables.FROM, (id, limit)):
                # Of those that this run received, none is counted: that would be a commit for each.
                delivery = begun + 1 if number <= self._inherited else 1
                found.append(Journalled(number, tables.from_row(message), delivery))
                size += its_size
                if size >= PART_BYTES:
                    break
        return found

    def begin(self, id: int, delivery: int) -> None:  # noqa: A002
        """Count a delivery of a message that an earlier run left; the next run's is then the one after it.

        Only what was counted can tell the message that ends the process from those that waited behind it. A first
        delivery counts as begun, without a commit.
        """
        with self._database.commit("count a delivery") as db:
            db.execute("UPDATE journal SET begun = ? WHERE id = ?", (delivery, id))

    def unfinished_count(self) -> int:
        """Return how many messages are in the journal, those of an earlier run included."""
        return self._count

    def unfinished_bytes(self) -> int:
        """Return about how many bytes they take."""
        return self._bytes

    def finish(self, id: int, answers: Sequence[Publication] = ()) -> list[int]:  # noqa: A002
        """Remove a message and keep its answers, in one commit; return the ids of the kept answers.

        An id that is not in the journal (any more) removes nothing; its answers are kept all the same.
        """
        with self._database.commit("finish a message") as db:
            size = _remove(db, id)
            kept = [insert(db, tables.KEEP, tables.publication_row(answer)) for answer in answers]
        self._forget(size)
        return kept

    def keep(self, publication: Publication) -> int:
        """Keep a publication until `sent` is told its id, which is returned."""
        with self._database.commit("keep a publication") as db:
            return insert(db, tables.KEEP, tables.publication_row(publication))

    def kept(self) -> list[tuple[int, Publication]]:
        """Return the publications that are not sent yet, oldest first, with their ids."""
        with self._database.read("read publications") as db:
            return [
                (number, Publication(tables.topic_text(topic), payload, qos, bool(retain), correlation_data))
                for number, topic, payload, qos, retain, correlation_data in db.execute(tables.KEPT)
            ]

    def sent(self, ids: Sequence[int]) -> None:
        """Forget kept publications, in one commit."""
        if ids:
            with self._database.commit("forget publications") as db:
                db.executemany("DELETE FROM kept WHERE id = ?", [(number,) for number in ids])

    def bury(
        self,
        received: Received,
        *,
        reason: str,
        details: str,
        id: int | None = None,  # noqa: A002
        answers: Sequence[Publication] = (),
    ) -> list[int]:
        """Make a dead letter, remove the message from the journal and keep its answers, in one commit.

        Returns the ids of the kept answers.

        Beyond `Limits` the oldest letters go, the newest stays; `dead_letters_dropped` counts those that went.

        Args:
            received: The message.
            reason: A few words that do not vary, such as `no handler`.
            details: What a person needs to see why.
            id: Its id in the journal, if it is there.
            answers: Publications to keep until they are sent.
        """
        reason, details = tables.plain(reason), tables.plain(details)
        size = tables.size_of(received) + len(reason) + len(details)
        total, dropped = self._dead_bytes + size, list[int]()
        for oldest, its_size in self._dead.items():
            if len(self._dead) - len(dropped) < self._limits.dead_letters and total <= self._limits.dead_letter_bytes:
                break
            dropped.append(oldest)
            total -= its_size
        with self._database.commit("bury a message") as db:
            letter = insert(db, tables.BURY, (reason, details, self._now(), size, *tables.to_row(received)))
            journalled = None if id is None else _remove(db, id)
            if dropped:
                db.executemany("DELETE FROM dead WHERE id = ?", [(old,) for old in dropped])
                db.execute(tables.COUNT, (len(dropped),))
            kept = [insert(db, tables.KEEP, tables.publication_row(answer)) for answer in answers]
        self._dead[letter], self._dead_bytes = size, total
        for old in dropped:
            del self._dead[old]
        self._forget(journalled)
        return kept

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with self._database.read("read dead letters") as db:
            return [
                DeadLetter(number, tables.from_row(message), reason, details, buried_at)
                for number, reason, details, buried_at, *message in db.execute(tables.DEAD)
            ]

    def dead_letters_dropped(self) -> int:
        """Return how many dead letters had to go for newer ones, over all runs."""
        with self._database.read("read a counter") as db:
            row = db.execute(tables.DROPPED).fetchone()
        return int(row[0]) if row else 0

    def _forget(self, size: int | None) -> None:
        if size is not None:
            self._count -= 1
            self._bytes -= size


@contextmanager
def open_store(folder: Path, *, limits: Limits = DEFAULT, now: Callable[[], float] = time.time) -> Generator[Store]:
    """Open `plugin.db` in a folder that this makes private, and close it at the end.

    A file that is damaged or has a newer version is set aside with a warning, as `open_database` says.

    Args:
        folder: One plugin's own, as from `data_folder`.
        limits: How large the file may grow.
        now: Seconds since the epoch, for dead letters and the names of files set aside.

    Raises:
        StoreError: The folder or the file cannot be used.
    """
    with open_database(make_private(folder) / FILE, tables.SCHEMA, at=now()) as database:
        yield Store(database, limits, now)


@contextmanager
def memory_store(*, limits: Limits = DEFAULT, now: Callable[[], float] = time.time) -> Generator[Store]:
    """Open a store that is gone at the end: for tests, and for plugins that may not write."""
    with memory_database(tables.SCHEMA) as database:
        yield Store(database, limits, now)


def _remove(db: Connection, id: int) -> int | None:  # noqa: A002
    """Remove a message from the journal; return its size, None where it is not there."""
    row = db.execute("SELECT size FROM journal WHERE id = ?", (id,)).fetchone()
    db.execute("DELETE FROM journal WHERE id = ?", (id,))
    return int(row[0]) if row else None
