"""Checkpoints: what commits have left in the write-ahead log moves into the file, in a thread.

Two waits for the disk belong to a checkpoint, and on a slow one each takes tens of milliseconds: not on the event loop.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ._file import BUSY, LOG_BYTES, MOST_BYTES, Connection

LOOK: Final = 32
"""Commits between two looks at the size of the log."""

CLOSING: Final = 2.0
"""Seconds that the thread has to end; a disk that does not answer must not hold up whoever closes the file."""

log = logging.getLogger("kepm_plugin.database")


class Checkpoints:
    """Counts commits, and wakes the thread where the log has grown; there is no thread before it is needed.

    The file's size says how much there is: `journal_size_limit` has the log cut back when it begins anew.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, f"{path}-wal"
        self._commits = 0
        self._next = LOG_BYTES
        self._wanted = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None

    def committed(self) -> None:
        """Take note of a commit; never raises."""
        self._commits += 1
        if self._commits % LOOK:
            return
        try:
            size = os.stat(self._log).st_size  # noqa: PTH116  a fourth of the time of Path.stat
        except OSError:
            return
        if size <= LOG_BYTES:
            self._next = LOG_BYTES
        elif self._next < size <= MOST_BYTES:
            # Once for so many pages: under commits without a pause the log goes on growing behind the checkpoint.
            self._next = size + LOG_BYTES
            self.wake()

    def wake(self) -> None:
        """Have the thread make a checkpoint."""
        self._wanted.set()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="kepm.checkpoint", daemon=True)
            with suppress(RuntimeError):  # no thread is to be had: commits do it, at `MOST_PAGES`
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=BUSY)) as self._connection:
                while self._wanted.wait() and not self._ended:
                    self._wanted.clear()
                    self.move(self._connection)
        except sqlite3.Error as exc:
            self._tell(exc)

    def move(self, connection: Connection) -> None:
        """Move what no reader needs any more; in the thread."""
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.OperationalError as exc:  # no room, or the disk fails; `MOST_PAGES` more, and it is tried again
            self._tell(exc)

    def _tell(self, error: sqlite3.Error) -> None:
        if not self._ended:
            log.warning("the write-ahead log of %s could not be moved into it: %s", self._path, error)

    def close(self) -> None:
        """End the thread, in the middle of a checkpoint too: that loses nothing."""
        self._ended = True
        self._wanted.set()
        if self._thread is not None:
            if self._connection is not None:
                with suppress(sqlite3.ProgrammingError):  # it has closed already
                    self._connection.interrupt()
            self._thread.join(CLOSING)


@contextmanager
def checkpointing(path: Path) -> Generator[Checkpoints]:
    """Have checkpoints made in a thread that ends with the context."""
    checkpoints = Checkpoints(path)
    try:
        yield checkpoints
    finally:
        checkpoints.close()
