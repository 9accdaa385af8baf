"""Dead letters as a command sees them, in another process than the plugin's, which may be running or not."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from ..database import Database, is_there, open_existing
from . import _tables as tables
from ._dead import DeadLetter, letter_of


class Entry(Struct, frozen=True):
    """A dead letter without what it holds. Times are in seconds since the epoch."""

    id: int
    topic: str
    reason: str
    size: int
    """Bytes of the payload."""
    qos: int
    buried_at: float
    received_at: float
    deliveries: int | None
    """As in `DeadLetter`."""


class Letters:
    """The dead letters of a plugin's file.

    Every method raises `StoreError` where the file cannot be read, or written; nothing is changed then.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database, self._now = database, now

    def all(self) -> list[Entry]:
        """Return what is there, oldest first."""
        with self._database.read("list dead letters") as db:
            return [Entry(number, tables.topic_text(topic), *rest) for number, topic, *rest in db.execute(tables.LIST)]

    def dropped(self) -> int:
        """Return how many had to go, over all runs."""
        with self._database.read("read a counter") as db:
            row = db.execute(tables.DROPPED).fetchone()
        return int(row[0]) if row else 0

    def read(self, id: int) -> DeadLetter | None:  # noqa: A002
        """Return one letter with all that it holds; None where it is gone."""
        with self._database.read("read a dead letter") as db:
            row = db.execute(tables.LETTER, (id,)).fetchone()
        return letter_of(row) if row else None

    def put_back(self, id: int) -> bool:  # noqa: A002
        """Move a letter into the journal, in one commit; False where it is gone.

        It begins anew there: its deliveries, its tries and its age, so that it is not given up for them at once. A
        running plugin finds it by `Store.added_by_others`, whatever is in the journal already.
        """
        with self._database.commit("replay a dead letter") as db:
            found = db.execute(tables.PUT_BACK, (self._now(), id)).rowcount > 0
            db.execute("DELETE FROM dead WHERE id = ?", (id,))
        return found

    def purge(self, ids: Sequence[int]) -> int:
        """Delete letters, in one commit; return how many were there."""
        with self._database.commit("purge dead letters") as db:
            return db.executemany("DELETE FROM dead WHERE id = ?", [(number,) for number in ids]).rowcount


@contextmanager
def open_letters(
    file: Path, *, writable: bool = False, now: Callable[[], float] = time.time
) -> Generator[Letters | None]:
    """Open the dead letters of a plugin's file; None where there is no file.

    The file is never made, set aside or repaired, and only written to where `writable`.

    Raises:
        StoreError: The file cannot be used: no permission, damaged, or written by a newer version.
    """
    if not is_there(file):
        yield None
        return
    with open_existing(file, tables.SCHEMA, writable=writable) as database:
        yield Letters(database, now)
