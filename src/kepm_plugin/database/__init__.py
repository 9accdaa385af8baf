"""An SQLite file of ours: opened with safe modes, numbered, set aside when it is damaged, changed in commits.

The only importer of sqlite3. Knows nothing of what the tables mean.
"""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ..errors import StoreError
from ._checkpoints import Checkpoints, checkpointing
from ._file import (
    Connection,
    Schema,
    connect,
    connect_existing,
    fault_of,
    is_there,
    prepare,
    set_aside,
    translated,
)

__all__ = [
    "Connection",
    "Database",
    "Schema",
    "insert",
    "insert_all",
    "is_there",
    "memory_database",
    "open_database",
    "open_existing",
]


class Database:
    """An open file, or memory where `path` is None. Belongs to the thread that opened it."""

    def __init__(self, connection: Connection, path: Path | None, checkpoints: Checkpoints | None = None) -> None:
        self._connection, self.path, self._checkpoints = connection, path, checkpoints

    @contextmanager
    def commit(self, action: str) -> Generator[Connection]:
        """Yield the connection inside one transaction: all of it is committed at the end, or nothing.

        Raises:
            StoreError: It failed; the message names `action`.
        """
        with translated(action, self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # a failed COMMIT leaves it open
                    self._connection.execute("ROLLBACK")
        if self._checkpoints is not None:
            self._checkpoints.committed()

    @contextmanager
    def read(self, action: str) -> Generator[Connection]:
        """Yield the connection for queries.

        Raises:
            StoreError: One failed; the message names `action`.
        """
        with translated(action, self.path):
            yield self._connection

    def foreign_version(self) -> int:
        """Return a number that is another one after a commit of another process; own commits do not change it.

        Raises:
            StoreError: The file cannot be read.
        """
        with self.read("look for changes") as db:
            return int(db.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def open_database(path: Path, schema: Schema, *, at: float) -> Generator[Database]:
    """Open a file, or make it with mode 0600, and close it at the end.

    A file that is damaged, is no database or has a newer version is renamed to `<name>.damaged-<time>` or
    `<name>.newer-<time>`, a warning is logged, and an empty one takes its place.

    Args:
        path: The file, in a folder that nobody else can write to.
        schema: What it must hold.
        at: Seconds since the epoch, for the name of a file set aside.

    Raises:
        StoreError: The file cannot be used.
    """
    with ExitStack() as opened:
        with translated("open", path):
            connection = opened.enter_context(closing(connect(path)))
            if fault := prepare(connection, schema):
                connection.close()
                set_aside(path, fault, at)
                connection = opened.enter_context(closing(connect(path)))
                prepare(connection, schema)
        yield Database(connection, path, opened.enter_context(checkpointing(path)))


@contextmanager
def open_existing(path: Path, schema: Schema, *, writable: bool) -> Generator[Database]:
    """Open a file that another process may be using, as `is_there` has found it; nothing is made or set aside.

    Raises:
        StoreError: The file cannot be used: it is damaged, or a newer version has written it.
    """
    with ExitStack() as opened:
        with translated("open", path):
            connection = opened.enter_context(closing(connect_existing(path, writable=writable)))
            fault = fault_of(connection, schema)
        if fault == "newer":
            raise StoreError(f"{path} was written by a newer version of the plugin; use the command of that version")
        if fault:
            raise StoreError(f"{path} is damaged, and left as it is; the plugin sets it aside when it starts")
        yield Database(connection, path)


@contextmanager
def memory_database(schema: Schema) -> Generator[Database]:
    """Open a database that is gone at the end."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection, schema)
        yield Database(connection, None)


def insert(connection: Connection, statement: str, row: Sequence[object]) -> int:
    """Insert one row and return its id."""
    return connection.execute(statement, tuple(row)).lastrowid or 0


def insert_all(connection: Connection, statement: str, rows: Sequence[Sequence[object]]) -> range:
    """Insert rows and return their ids.

    To be called in a commit: nobody else inserts meanwhile, so that SQLite numbers them without a gap ("SQLite
    Autoincrement": one more than the largest so far).
    """
    connection.executemany(statement, rows)
    last = connection.execute("SELECT last_insert_rowid()").fetchone()[0] if rows else -1
    return range(last + 1 - len(rows), last + 1)
