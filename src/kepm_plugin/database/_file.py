"""The file itself: how it is opened, how its state is told, how one that cannot be used is set aside."""

import logging
import os
import sqlite3
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from ..errors import StoreError

PAGES: Final = 1_000
"""Of 4 KiB that the write-ahead log may have before they are moved into the file, by a thread."""

MOST_PAGES: Final = 4_000
"""Pages at which a commit moves what is left of them itself, and waits for the disk: under commits without a pause no
thread ever comes to the end. Measured: with four times as many the longest commit is the longer one, since what the
log took has to be given back."""

LOG_BYTES: Final = PAGES * (4096 + 24) + 32
"""Size of the log's file with so many pages (SQLite, "WAL-mode File Format")."""

MOST_BYTES: Final = MOST_PAGES * (4096 + 24) + 32
"""Its size with the most of them; beyond it the thread rests, or the commit would find it at work for ever."""

BUSY: Final = 1.0
"""Seconds that a commit of the plugin waits for another process, such as a command that replays dead letters."""

PATIENCE: Final = 10.0
"""Seconds that such a command waits for the plugin."""

_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_DAMAGED: Final = (*_CORRUPT, sqlite3.SQLITE_ERROR)
"""The last is what a database of somebody else gives: no such table or column."""

_OWNER: Final = "run this as the user that the plugin runs as, which is root (an administrator) for a service"

Connection = sqlite3.Connection
Fault = Literal["", "newer", "damaged"]

log = logging.getLogger("kepm_plugin.database")


class Schema(Struct, frozen=True, kw_only=True):
    """What a file must hold.

    Attributes:
        version: At least 1, kept in the file as `user_version`.
        script: Statements that make the tables in an empty file.
        queries: Statements that a file of this version can answer; the parameters do not matter.
    """

    version: int
    script: str
    queries: Sequence[str]


def connect(path: Path) -> Connection:
    """Connect to a file, made with mode 0600 where there is none."""
    # Made here, since SQLite would leave the mode to the umask; its -wal and -shm files take the mode of this one. One
    # that is there is not opened: to close it again would end the locks of every connection of this process.
    try:
        found = path.lstat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    else:
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path.name} is no regular file")
        path.chmod(0o600)
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY)


def connect_existing(path: Path, *, writable: bool) -> Connection:
    """Connect to a file that another process may be using; it is never made, and only written to where that is said."""
    mode = "rw" if writable else "ro"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=PATIENCE)


def is_there(path: Path) -> bool:
    """Tell whether there is a file that this process may open.

    Raises:
        StoreError: There is something, and this process may not, or it is no file.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise StoreError(f"cannot look for {path}: {exc.strerror}; {_OWNER}") from exc
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path} is no regular file; remove it, or name another folder with --data-dir")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreError(f"{path} cannot be opened: permission denied; {_OWNER}")
    return True


def prepare(connection: Connection, schema: Schema) -> Fault:
    """Set safe modes and make the tables where there are none; return what is wrong with the file."""
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.version:
            return "newer"
        is_new = connection.execute("PRAGMA page_count").fetchone()[0] == 0
        if is_new:
            # To go over to WAL is a change itself, which a journal on disk, synced three times, could take back: there
            # is nothing yet to go back to. The file, its log and the folder are synced all the same.
            connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {MOST_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        if version == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {schema.script}; PRAGMA user_version = {schema.version}; COMMIT"
            )
        if is_new:  # what has just been made needs no check
            return ""
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            return "damaged"
        _ask(connection, schema)
    except sqlite3.DatabaseError as exc:
        if _code(exc) in _DAMAGED:
            return "damaged"
        raise
    return ""


def fault_of(connection: Connection, schema: Schema) -> Fault:
    """Return what is wrong with a file, without changing it; one without tables is as if damaged."""
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] > schema.version:
            return "newer"
        _ask(connection, schema)
    except sqlite3.DatabaseError as exc:
        if _code(exc) in _DAMAGED:
            return "damaged"
        raise
    return ""


def _ask(connection: Connection, schema: Schema) -> None:
    for query in schema.queries:
        connection.execute(query.replace("?", "0")).fetchone()


def set_aside(path: Path, fault: Fault, at: float) -> None:
    """Rename a file, so that an empty one can take its place; `at` is in seconds since the epoch."""
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
def translated(action: str, path: Path | None) -> Generator[None]:
    """Turn what SQLite and the system raise into `StoreError`, with what was wanted, where, and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:  # ours: a wrong thread, or a file used after it was closed
        raise
    except (sqlite3.Error, OSError) as exc:
        place = path or "memory"
        if _code(exc) in _CORRUPT:
            raise StoreError(
                f"cannot {action} in {place}, which is damaged: {exc}; start the plugin anew, it then sets the file "
                "aside and begins an empty one"
            ) from exc
        raise StoreError(
            f"cannot {action} in {place}: {exc}; make room there, make it writable, "
            "or name another folder with --data-dir"
        ) from exc


def _code(error: Exception) -> int:
    # The low byte; the rest says where (SQLite, "Extended result codes").
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
