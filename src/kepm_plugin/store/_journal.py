"""The journal: received messages, from the commit that makes them safe to the one that holds their end."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from ..database import Connection, Database, insert, insert_all
from ..errors import StoreError
from ..message import Received
from . import _tables as tables
from ._limits import Limits

PART: Final = 200
"""Messages that are read back at a time."""

PART_BYTES: Final = 4 * 2**20
"""Bytes of messages that are read back at a time; one more message may go beyond."""


class Journalled(Struct, frozen=True):
    """A received message that is on disk and not done yet.

    `delivery` is which delivery to its handler the next one is: 1 in the run that received it, at least 2 afterwards.
    The packet identifier of a message from an earlier run is 0: its session is gone.
    """

    id: int
    received: Received
    delivery: int
    attempts: int = 0
    """How often its handler has failed and asked for another try."""
    due: float | None = None
    """Not to be tried before this time, in seconds since the epoch."""


class Journal:
    """The table of messages. What is written in one commit with other tables takes the open connection."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self.limits = database, limits
        # Held here, so that a full journal does not cost a scan per message.
        self.count: int
        self.bytes: int
        self.identity: str
        with database.read("read totals") as db:
            self.count, self.bytes, self._inherited = db.execute(tables.TOTALS).fetchone()
            (self.identity,) = db.execute(tables.IDENTITY).fetchone()

    def add(self, batch: Sequence[Received]) -> list[Journalled]:
        """Write messages in one commit, and return them with ascending ids.

        Raises:
            StoreError: They could not be written, or the journal is full.
        """
        self._check_room()
        sizes = [tables.size_of(received) for received in batch]
        with self._database.commit("journal messages") as db:
            ids = insert_all(
                db,
                tables.JOURNAL,
                [
                    (1, 0, None, None, size, *tables.to_row(received))
                    for received, size in zip(batch, sizes, strict=True)
                ],
            )
        self.count += len(batch)
        self.bytes += sum(sizes)
        return [Journalled(number, received, 1) for number, received in zip(ids, batch, strict=True)]

    def _check_room(self) -> None:
        if self.bytes >= self.limits.journal_bytes:
            raise StoreError(
                f"the journal holds {self.count} messages and is full ({self.bytes} bytes); nothing more "
                "is acknowledged until handlers have caught up: make them quicker, or give them more `concurrency`"
            )

    def unfinished(self, after: int) -> list[Journalled]:
        """Return the next few messages that an earlier run left behind a number, in the order of arrival."""
        return [row for row in self.read_from(after + 1, PART) if row.id <= self._inherited]

    def read_from(self, id: int, limit: int) -> list[Journalled]:  # noqa: A002
        """Return messages that wait for their handler from a number on, in the order of arrival.

        At least one where there is any, at most `limit`, and no more once they have `PART_BYTES`.
        """
        found, size = list[Journalled](), 0
        with self._database.read("read the journal") as db:
            rows = db.execute(tables.FROM, (id, self._inherited, limit))
            for number, begun, attempts, due, its_size, *message in rows:
                # Of those that this run received, none is counted: that would be a commit for each. What was put back
                # while no plugin ran has begun no delivery, and is counted from the first one on.
                delivery = max(begun, 1) + 1 if number <= self._inherited else 1
                found.append(Journalled(number, tables.from_row(message), delivery, attempts, due))
                size += its_size
                if size >= PART_BYTES:
                    break
        return found

    def begin(self, id: int, delivery: int) -> None:  # noqa: A002
        """Count a delivery of a message that an earlier run left; the next run's is then the one after it."""
        with self._database.commit("count a delivery") as db:
            db.execute("UPDATE journal SET begun = ? WHERE id = ?", (delivery, id))

    def postpone(self, id: int, attempts: int, due: float) -> None:  # noqa: A002
        """Note that a message's handler has failed so often, and when it is tried again."""
        with self._database.commit("postpone a message") as db:
            # This delivery has not ended with the process, and so does not count.
            db.execute(
                "UPDATE journal SET attempts = ?, due = ?, begun = max(begun - 1, 1) WHERE id = ?", (attempts, due, id)
            )

    def defer(self, ticket: str, id: int | None, received: Received) -> None:  # noqa: A002
        """Keep a message until its ticket is answered; it waits for no handler any more."""
        size = tables.size_of(received)
        if id is None:
            self._check_room()
        with self._database.commit("defer a message") as db:
            if id is not None:
                db.execute("UPDATE journal SET ticket = ? WHERE id = ?", (ticket, id))
            else:
                insert(db, tables.JOURNAL, (1, 0, None, ticket, size, *tables.to_row(received)))
        if id is None:
            self.count += 1
            self.bytes += size

    def deferred(self, ticket: str) -> tuple[int, Received] | None:
        """Return the message of a ticket with its id; None where the ticket is unknown, or was answered."""
        with self._database.read("read a ticket") as db:
            row = db.execute(tables.TICKET, (ticket,)).fetchone()
        return None if row is None else (row[0], tables.from_row(row[1:]))

    def expired(self, before: float, limit: int) -> list[tuple[int, Received]]:
        """Return deferred messages that were received before a time, oldest first, with their ids."""
        with self._database.read("read old tickets") as db:
            found = db.execute(tables.EXPIRED, (tables.CLOCK_IS_SET, before, limit))
            return [(number, tables.from_row(message)) for number, *message in found]

    def forget(self, size: int | None) -> None:
        """Take a removed message out of the totals, once the commit has succeeded."""
        if size is not None:
            self.count -= 1
            self.bytes -= size

    def forget_all(self, removed: tuple[int, int]) -> None:
        """Take several out, by their number and size."""
        self.count -= removed[0]
        self.bytes -= removed[1]

    def take_up(self) -> list[Journalled]:
        """Return some of what commands have put back since this run began, and let `read_from` know of them.

        Refreshes the totals. The delivery is the first one, as that of a message which this run received.
        """
        found, size = list[Journalled](), 0
        with self._database.read("read the journal") as db:
            for number, its_size, *message in db.execute(tables.PUT_BACK_SINCE, (self._inherited, PART)):
                found.append(Journalled(number, tables.from_row(message), 1))
                size += its_size
                if size >= PART_BYTES:
                    break
        if found:
            with self._database.commit("take up what was put back") as db:
                db.executemany("UPDATE journal SET begun = 1 WHERE id = ?", [(row.id,) for row in found])
        with self._database.read("read totals") as db:
            self.count, self.bytes, _ = db.execute(tables.TOTALS).fetchone()
        return found


def remove(db: Connection, id: int) -> int | None:  # noqa: A002
    """Remove a message from the journal; return its size, None where it is not there."""
    row = db.execute("SELECT size FROM journal WHERE id = ?", (id,)).fetchone()
    db.execute("DELETE FROM journal WHERE id = ?", (id,))
    return int(row[0]) if row else None


def remove_all(db: Connection, ids: Sequence[int]) -> tuple[int, int]:
    """Remove messages from the journal; return how many were there, and their size.

    What arrives together mostly ends together: a statement takes all that have ascending ids without a gap.
    """
    count = size = 0
    for first, last in _runs(ids):
        found = db.execute(tables.TOTALS_BETWEEN, (first, last)).fetchone()
        db.execute("DELETE FROM journal WHERE id BETWEEN ? AND ?", (first, last))
        count, size = count + found[0], size + found[1]
    return count, size


def _runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return numbers as stretches without a gap, first and last of each."""
    runs = list[tuple[int, int]]()
    for number in sorted(ids):
        if runs and number <= runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs
