"""The plugin's file: received messages until they are done, publications until they are sent, dead letters.

One SQLite database, `plugin.db`, in a folder that only its owner can read. Every change is one commit, made on the
caller's thread (16 microseconds in WAL mode). `synchronous=NORMAL`: what was committed survives `kill -9`; a power cut
may take the last commits. Knows nothing of handlers, sessions or clocks other than the one it is given.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..database import Database, memory_database, open_database
from ..errors import StoreError
from ..folder import make_private
from ..message import Publication, Received
from . import _tables as tables
from ._dead import DeadLetter, DeadLetters
from ._journal import PART, Journal, Journalled, remove, remove_all
from ._kept import Keep, Kept, kept_size
from ._letters import Entry, Letters, open_letters
from ._limits import DEFAULT, Limits

__all__ = [
    "DEFAULT",
    "FILE",
    "PART",
    "DeadLetter",
    "Entry",
    "Journalled",
    "Keep",
    "Letters",
    "Limits",
    "Store",
    "kept_size",
    "memory_store",
    "open_letters",
    "open_store",
]

FILE: Final = "plugin.db"


class Store:
    """The open file. Belongs to the thread that opened it.

    Every method that writes raises `StoreError` when it could not, and has then changed nothing.
    """

    def __init__(self, database: Database, limits: Limits, now: Callable[[], float]) -> None:
        self._database, self._limits, self._now = database, limits, now
        self._version = database.foreign_version()
        self._journal = Journal(database, limits)
        self._kept = Kept(database, limits, now)
        self._dead = DeadLetters(database, limits, now)
        with suppress(StoreError):  # a full disk: they go later
            self._dead.drop_old()

    def bound(self, limits: Limits) -> None:
        """Have other limits from now on. Nothing goes at once: of dead letters, too many go when the next one comes."""
        self._limits = self._journal.limits = self._kept.limits = self._dead.limits = limits

    # --- received messages --------------------------------------------------------------------------------------------

    def journal(self, batch: Sequence[Received]) -> list[Journalled]:
        """Write what was read in one drain, in one commit, and return it with ascending ids.

        Raises:
            StoreError: It could not be written, or the journal is full. The messages must not be acknowledged.
        """
        return self._journal.add(batch) if batch else []

    def unfinished(self, after: int = 0) -> list[Journalled]:
        """Return the next few messages that an earlier run left behind a number, in the order of arrival."""
        return self._journal.unfinished(after)

    def read_from(self, id: int, limit: int) -> list[Journalled]:  # noqa: A002
        """Return messages that wait for their handler from a number on, in the order of arrival.

        At least one where there is any, at most `limit`, and not many more than `PART_BYTES`.
        """
        return self._journal.read_from(id, limit)

    def begin(self, id: int, delivery: int) -> None:  # noqa: A002
        """Count a delivery of a message that an earlier run left; the next run's is then the one after it.

        Only what was counted can tell the message that ends the process from those that waited behind it. A first
        delivery counts as begun, without a commit.
        """
        self._journal.begin(id, delivery)

    def postpone(self, id: int, attempts: int, due: float) -> None:  # noqa: A002
        """Note that a message's handler has failed so often, and is not tried before `due`, seconds since the epoch."""
        self._journal.postpone(id, attempts, due)

    def defer(self, ticket: str, id: int | None, received: Received) -> None:  # noqa: A002
        """Keep a message, journalled before or not, until `finish`; it waits for its ticket and no handler any more."""
        self._journal.defer(ticket, id, received)

    def deferred(self, ticket: str) -> tuple[int, Received] | None:
        """Return the message of a ticket with its id; None where the ticket is unknown, or was answered."""
        return self._journal.deferred(ticket)

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits that tell this file from another one."""
        return self._journal.identity

    def too_old(self, received_at: float) -> bool:
        """Tell whether a message has waited for longer than the journal keeps any; `received_at` is as in Received."""
        return tables.CLOCK_IS_SET < received_at < self._now() - self._limits.journal_age

    def expired(self) -> list[tuple[int, Received]]:
        """Return some of the deferred messages that are too old, oldest first, with their ids."""
        return self._journal.expired(self._now() - self._limits.journal_age, PART)

    def added_by_others(self) -> list[Journalled]:
        """Return some of what a command in another process has put back into the journal, in order.

        Call it until nothing comes, now and then: where no other process has written it is one small query. It takes
        note of everything else that commands have done.
        """
        version = self._database.foreign_version()
        if version == self._version:
            return []
        self._dead.refresh()
        rows = self._journal.take_up()
        if not rows:
            self._version = version
        return rows

    def unfinished_count(self) -> int:
        """Return how many messages are in the journal, those of an earlier run included."""
        return self._journal.count

    def unfinished_bytes(self) -> int:
        """Return about how many bytes they take."""
        return self._journal.bytes

    def finish(self, id: int, answers: Sequence[Publication] = ()) -> list[int]:  # noqa: A002
        """Remove a message and keep its answers, in one commit; return the ids of the kept answers.

        An id that is not in the journal (any more) removes nothing; its answers are kept all the same.
        """
        with self._database.commit("finish a message") as db:
            size = remove(db, id)
            kept = [self._kept.insert(db, Keep.ANSWER, answer) for answer in answers]
        self._journal.forget(size)
        self._kept.added((Keep.ANSWER, answer) for answer in answers)
        return kept

    def finish_all(self, ids: Sequence[int]) -> None:
        """Remove messages that have no answer, in one commit; an id that is not in the journal is nothing."""
        with self._database.commit("finish messages") as db:
            removed = remove_all(db, ids)
        self._journal.forget_all(removed)

    # --- publications -------------------------------------------------------------------------------------------------

    def keep(self, batch: Sequence[tuple[Keep, Publication]], sent: Sequence[int] = ()) -> list[int]:
        """Keep publications and forget those that were sent, in one commit; return the ids of the new ones, ascending.

        Limits are the caller's affair, by `has_room`; unknown ids are nothing.
        """
        return self._kept.exchange(batch, sent) if batch or sent else []

    def has_room(self, kind: Keep, count: int, size: int) -> bool:
        """Tell whether so many more, of so many bytes together, are within the limits of a kind, which has some."""
        return self._kept.has_room(kind, count, size)

    def kept(self, from_id: int = 0, limit: int = -1) -> list[tuple[int, Publication]]:
        """Return publications that are not sent yet from a number on, oldest first, with their ids.

        At least one where there is any, at most `limit`, and no more once they have some MiB.
        """
        return self._kept.read_from(from_id, limit)

    def kept_of(self, kind: Keep) -> tuple[int, int]:
        """Return how many publications of a kind are kept, and about how many bytes they take."""
        return self._kept.totals.get(kind, (0, 0))

    def kept_count(self) -> int:
        """Return how many publications are kept."""
        return self._kept.count

    def kept_last(self) -> int:
        """Return the highest id of those that are kept; 0 where there is none."""
        return self._kept.last()

    def expire(self) -> list[int]:
        """Forget publications that are too old; return their ids, ascending. Answers are never too old."""
        return self._kept.expire()

    # --- dead letters -------------------------------------------------------------------------------------------------

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

        Beyond `Limits` the oldest letters go, the newest stays; `dead_letters_dropped` counts those that went. Those
        that are too old go now, and when the file is opened.

        Args:
            received: The message.
            reason: A few words that do not vary, such as `no handler`.
            details: What a person needs to see why.
            id: Its id in the journal, if it is there.
            answers: Publications to keep until they are sent.
        """
        reason, details = tables.plain(reason), tables.plain(details)
        with self._database.commit("bury a message") as db:
            known = None if id is None else db.execute(tables.DELIVERIES, (id,)).fetchone()
            burial = self._dead.bury(db, received, reason, details, None if known is None else known[0])
            size = None if id is None else remove(db, id)
            kept = [self._kept.insert(db, Keep.ANSWER, answer) for answer in answers]
        self._dead.buried(burial)
        self._journal.forget(size)
        self._kept.added((Keep.ANSWER, answer) for answer in answers)
        return kept

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters, oldest first."""
        return self._dead.all()

    def dead_letters_dropped(self) -> int:
        """Return how many dead letters had to go, for newer ones or for their age, over all runs."""
        return self._dead.dropped

    def report(self) -> dict[str, int]:
        """Return the counters by name, in JSON's casing; nothing is read for it."""
        return {"deadLetters": len(self._dead), "deadLettersDropped": self._dead.dropped}


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
