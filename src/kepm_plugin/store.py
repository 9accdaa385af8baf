"""The plugin's file: received messages until they are done, publications until they are sent, dead letters.

One SQLite database, `plugin.db`, in a folder that only its owner can read. Every change is one commit, made on the
caller's thread (16 microseconds in WAL mode). `synchronous=NORMAL`: what was committed survives `kill -9`; a power cut
may take the last commits. Knows nothing of handlers, sessions or clocks other than the one it is given.
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .database import Connection, Database, Schema, insert, memory_database, open_database
from .errors import StoreError
from .folder import make_private
from .message import EMPTY, Publication, Received

FILE: Final = "plugin.db"

# The size comes first: SQLite reads a row from its start, and a payload may fill many pages.
_MESSAGE_COLUMNS: Final = """size INTEGER NOT NULL, topic BLOB NOT NULL, payload BLOB NOT NULL, qos INTEGER NOT NULL,
    retained INTEGER NOT NULL, received_at REAL NOT NULL, response_topic BLOB, correlation_data BLOB, properties TEXT"""
_MESSAGE: Final = "topic, payload, qos, retained, received_at, response_topic, correlation_data, properties"
_UNFINISHED: Final = f"SELECT id, delivery, {_MESSAGE} FROM journal WHERE id <= ? ORDER BY id"  # noqa: S608  constants
_FROM: Final = f"SELECT id, delivery, {_MESSAGE} FROM journal WHERE id >= ? ORDER BY id LIMIT ?"  # noqa: S608  constants
_TOTALS: Final = "SELECT count(*), coalesce(sum(size), 0), coalesce(max(id), 0) FROM journal"
_KEPT: Final = "SELECT id, topic, payload, qos, retain, correlation_data FROM kept ORDER BY id"
_DEAD: Final = f"SELECT id, reason, details, buried_at, {_MESSAGE} FROM dead ORDER BY id"  # noqa: S608  constants
_DEAD_SIZES: Final = "SELECT id, size FROM dead ORDER BY id"
_DROPPED: Final = "SELECT value FROM counters WHERE name = 'dead_letters_dropped'"
_JOURNAL: Final = "INSERT INTO journal VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KEEP: Final = "INSERT INTO kept VALUES (NULL, ?, ?, ?, ?, ?)"
_BURY: Final = "INSERT INTO dead VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COUNT: Final = """INSERT INTO counters VALUES ('dead_letters_dropped', ?)
    ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"""

# AUTOINCREMENT: an id is never given twice, so that one kept elsewhere cannot come to mean another message.
_SCHEMA: Final = Schema(
    version=1,
    script=f"""
        CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, delivery INTEGER NOT NULL, {_MESSAGE_COLUMNS});
        CREATE TABLE kept (id INTEGER PRIMARY KEY AUTOINCREMENT, topic BLOB NOT NULL, payload BLOB NOT NULL,
            qos INTEGER NOT NULL, retain INTEGER NOT NULL, correlation_data BLOB);
        CREATE TABLE dead (id INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, details TEXT NOT NULL,
            buried_at REAL NOT NULL, {_MESSAGE_COLUMNS});
        CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)""",
    queries=(_UNFINISHED, _FROM, _TOTALS, _KEPT, _DEAD, _DEAD_SIZES, _DROPPED),
)
_ROW: Final = 100
"""Bytes that a row costs besides its payload and topic, roughly."""


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

    `delivery` counts the runs of the plugin that took it up, 1 at first. The packet identifier of a message from an
    earlier run is 0: its session is gone.
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
    """The open file. Belongs to the thread that opened it, but for `checkpoint`.

    Every method that writes raises `StoreError` when it could not, and has then changed nothing.
    """

    def __init__(self, database: Database, limits: Limits, now: Callable[[], float]) -> None:
        self._database, self._limits, self._now = database, limits, now
        # Held here, so that neither a full journal nor a flood of dead letters costs a scan per message.
        self._count: int
        self._bytes: int
        with database.read("read totals") as db:
            self._count, self._bytes, self._inherited = db.execute(_TOTALS).fetchone()
            self._dead: dict[int, int] = dict(db.execute(_DEAD_SIZES))
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
                "is acknowledged until handlers have caught up: make them quicker, or raise kepm.journal.max_mb"
            )
        sizes = [_size(received) for received in batch]
        with self._database.commit("journal messages") as db:
            ids = [
                insert(db, _JOURNAL, (1, size, *_to_row(received))) for received, size in zip(batch, sizes, strict=True)
            ]
        self._count += len(ids)
        self._bytes += sum(sizes)
        return [Journalled(number, received, 1) for number, received in zip(ids, batch, strict=True)]

    def unfinished(self) -> list[Journalled]:
        """Return what an earlier run left, in the order of arrival, with `delivery` raised by one. Call it once."""
        with self._database.commit("read the journal") as db:
            db.execute("UPDATE journal SET delivery = delivery + 1 WHERE id <= ?", (self._inherited,))
            rows = db.execute(_UNFINISHED, (self._inherited,)).fetchall()
        return [Journalled(number, _from_row(message), delivery) for number, delivery, *message in rows]

    def read_from(self, id: int, limit: int) -> list[Journalled]:  # noqa: A002
        """Return up to `limit` messages of the journal from a number on, in the order of arrival."""
        with self._database.read("read the journal") as db:
            rows = db.execute(_FROM, (id, limit)).fetchall()
        return [Journalled(number, _from_row(message), delivery) for number, delivery, *message in rows]

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
            kept = [insert(db, _KEEP, _publication_row(answer)) for answer in answers]
        self._forget(size)
        return kept

    def keep(self, publication: Publication) -> int:
        """Keep a publication until `sent` is told its id, which is returned."""
        with self._database.commit("keep a publication") as db:
            return insert(db, _KEEP, _publication_row(publication))

    def kept(self) -> list[tuple[int, Publication]]:
        """Return the publications that are not sent yet, oldest first, with their ids."""
        with self._database.read("read publications") as db:
            return [
                (number, Publication(_text(topic), payload, qos, bool(retain), correlation_data))
                for number, topic, payload, qos, retain, correlation_data in db.execute(_KEPT)
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
        reason, details = _plain(reason), _plain(details)
        size = _size(received) + len(reason) + len(details)
        total, dropped = self._dead_bytes + size, list[int]()
        for oldest, its_size in self._dead.items():
            if len(self._dead) - len(dropped) < self._limits.dead_letters and total <= self._limits.dead_letter_bytes:
                break
            dropped.append(oldest)
            total -= its_size
        with self._database.commit("bury a message") as db:
            letter = insert(db, _BURY, (reason, details, self._now(), size, *_to_row(received)))
            journalled = None if id is None else _remove(db, id)
            if dropped:
                db.executemany("DELETE FROM dead WHERE id = ?", [(old,) for old in dropped])
                db.execute(_COUNT, (len(dropped),))
            kept = [insert(db, _KEEP, _publication_row(answer)) for answer in answers]
        self._dead[letter], self._dead_bytes = size, total
        for old in dropped:
            del self._dead[old]
        self._forget(journalled)
        return kept

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        with self._database.read("read dead letters") as db:
            return [
                DeadLetter(number, _from_row(message), reason, details, buried_at)
                for number, reason, details, buried_at, *message in db.execute(_DEAD)
            ]

    def dead_letters_dropped(self) -> int:
        """Return how many dead letters had to go for newer ones, over all runs."""
        with self._database.read("read a counter") as db:
            row = db.execute(_DROPPED).fetchone()
        return int(row[0]) if row else 0

    def checkpoint(self) -> None:
        """Move what was committed from the WAL into the file, in a worker thread: it waits for the disk.

        SQLite does it on the thread of a commit as well, but not before the WAL is large.
        """
        self._database.checkpoint()

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
    with open_database(make_private(folder) / FILE, _SCHEMA, at=now()) as database:
        yield Store(database, limits, now)


@contextmanager
def memory_store(*, limits: Limits = DEFAULT, now: Callable[[], float] = time.time) -> Generator[Store]:
    """Open a store that is gone at the end: for tests, and for plugins that may not write."""
    with memory_database(_SCHEMA) as database:
        yield Store(database, limits, now)


def _size(received: Received) -> int:
    return _ROW + len(received.payload) + len(received.topic)


def _remove(db: Connection, id: int) -> int | None:  # noqa: A002
    """Remove a message from the journal; return its size, None where it is not there."""
    row = db.execute("SELECT size FROM journal WHERE id = ?", (id,)).fetchone()
    db.execute("DELETE FROM journal WHERE id = ?", (id,))
    return int(row[0]) if row else None


def _to_row(received: Received) -> tuple[object, ...]:
    return (
        _bytes(received.topic),
        received.payload,
        received.qos,
        received.retained,
        received.received_at,
        None if received.response_topic is None else _bytes(received.response_topic),
        received.correlation_data,
        json.dumps(dict(received.properties)) if received.properties else None,
    )


def _from_row(row: Sequence[Any]) -> Received:
    topic, payload, qos, retained, received_at, response_topic, correlation_data, properties = row
    return Received(
        topic=_text(topic),
        payload=payload,
        qos=qos,
        retained=bool(retained),
        received_at=received_at,
        response_topic=None if response_topic is None else _text(response_topic),
        correlation_data=correlation_data,
        properties=json.loads(properties) if properties else EMPTY,
    )


def _publication_row(publication: Publication) -> tuple[object, ...]:
    return (
        _bytes(publication.topic),
        publication.payload,
        publication.qos,
        publication.retain,
        publication.correlation_data,
    )


def _bytes(topic: str) -> bytes:
    """Encode a topic; a broker may let one pass that is no UTF-8, and what came is kept as it came."""
    return topic.encode("utf-8", "surrogatepass")


def _text(topic: bytes) -> str:
    return topic.decode("utf-8", "surrogatepass")


def _plain(text: str) -> str:
    """Make a text printable: an error's message may quote a topic that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
