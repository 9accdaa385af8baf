"""An SQLite file of ours: opened with safe modes, numbered, set aside when it is damaged, changed in commits.

The only importer of sqlite3. Knows nothing of what the tables mean.
"""

import logging
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .errors import StoreError

WAL_PAGES: Final = 1_000
"""Of 4 KiB: above this a commit moves them into the file itself, and waits for the disk."""

_BUSY: Final = 1.0
"""Seconds that a commit waits for another process, such as a command that lists what is in the file."""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""The last is what a database of somebody else gives: no such table or column."""

Connection = sqlite3.Connection

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a file must hold.

    Attributes:
        version: At least 1, kept in the file as `user_version`.
        script: Statements that make the tables in an empty file.
        queries: Statements that a file of this version can answer; the parameters do not matter.
    """

    version: int
    script: str
    queries: Sequence[str]


class Database:
    """An open file, or memory where `path` is None. Belongs to the thread that opened it."""

    def __init__(self, connection: Connection, path: Path | None) -> None:
        self._connection, self.path = connection, path

    @contextmanager
    def commit(self, action: str) -> Generator[Connection]:
        """Yield the connection inside one transaction: all of it is committed at the end, or nothing.

        Raises:
            StoreError: It failed; the message names `action`.
        """
        with _translated(action, self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # a failed COMMIT leaves it open
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def read(self, action: str) -> Generator[Connection]:
        """Yield the connection for queries.

        Raises:
            StoreError: One failed; the message names `action`.
        """
        with _translated(action, self.path):
            yield self._connection


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
        with _translated("open", path):
            connection = opened.enter_context(closing(_connect(path)))
            if fault := _prepare(connection, schema):
                connection.close()
                _set_aside(path, fault, at)
                connection = opened.enter_context(closing(_connect(path)))
                _prepare(connection, schema)
        yield Database(connection, path)


@contextmanager
def memory_database(schema: Schema) -> Generator[Database]:
    """Open a database that is gone at the end."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _prepare(connection, schema)
        yield Database(connection, None)


def insert(connection: Connection, statement: str, row: Sequence[object]) -> int:
    """Insert one row and return its id."""
    return connection.execute(statement, tuple(row)).lastrowid or 0


def _connect(path: Path) -> Connection:
    # Made here, since SQLite would leave the mode to the umask; its -wal and -shm files take the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    path.chmod(0o600)
    return sqlite3.connect(path, isolation_level=None, timeout=_BUSY)


def _prepare(connection: Connection, schema: Schema) -> str:
    """Make the tables where there are none; return what is wrong with the file in one word, `""` for nothing."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.version:
            return "newer"
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        if version == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {schema.script}; PRAGMA user_version = {schema.version}; COMMIT"
            )
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            return "damaged"
        for query in schema.queries:
            connection.execute(query.replace("?", "0")).fetchone()
    except sqlite3.DatabaseError as exc:
        if (
            exc.sqlite_errorcode & 0xFF in _DAMAGED
        ):  # the low byte; the rest says where (SQLite, "Extended result codes")
            return "damaged"
        raise
    return ""


def _set_aside(path: Path, fault: str, at: float) -> None:
    aside = f"{path.name}.{fault}-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%S.%fZ}"
    # The companions too: SQLite would replay an old -wal into the new file.
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(aside + suffix))
    log.warning(
        "%s is %s and was set aside as %s; what it holds is not handled, an empty file takes its place",
        path,
        fault,
        aside,
    )


@contextmanager
def _translated(action: str, path: Path | None) -> Generator[None]:
    try:
        yield
    except sqlite3.ProgrammingError:  # ours: a wrong thread, or a file used after it was closed
        raise
    except (sqlite3.Error, OSError) as exc:
        raise StoreError(
            f"cannot {action} in {path or 'memory'}: {exc}; make room there, make it writable, "
            "or name another folder with --data-dir"
        ) from exc
