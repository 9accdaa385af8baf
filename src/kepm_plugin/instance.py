"""One copy of a plugin at a time: the lock that says which, and whether the one who launched us is still there.

Nothing here waits or polls on its own: `runtime` asks as often as it wants to know. The only importer of filelock.
"""

import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from .contract import JOB_ID_VARIABLE
from .errors import StartedAsJob, StoreError
from .folder import lock_folder, make_private

RETRY: Final = 0.05
"""Seconds between two attempts of a copy that stands by.

No system wakes a waiter that can also be cancelled, so it asks: 20 system calls a second, for as long as two copies are
alive. The lock of a killed holder is seen as free after this time.
"""


class InstanceLock:
    """The lock of one plugin id, held by at most one process of this user.

    The operating system frees it when its holder ends, however it ends; a holder that is stopped (`SIGSTOP`) keeps it.
    Two objects exclude each other within a process too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # preserve_lock_file: never unlinked, since two copies could then hold two files of one name. It also rules out
        # filelock's soft lock, which a kill -9 would leave behind.
        self._lock = FileLock(path, timeout=0, mode=0o600, thread_local=False, preserve_lock_file=True)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_locked

    def try_acquire(self) -> bool:
        """Take the lock if it is free; return whether it is held now. Never waits.

        Raises:
            StoreError: The lock's file cannot be used.
        """
        if self.held:
            return True
        try:
            self._lock.acquire()
        except Timeout:
            return False
        except OSError as exc:
            raise StoreError(f"the lock {self.path} cannot be used: {exc.strerror}; make it writable") from exc
        return True

    def release(self) -> None:
        """Give the lock to the next one; without it, do nothing."""
        self._lock.release()


@contextmanager
def instance_lock(plugin_id: str, folder: Path | None = None) -> Generator[InstanceLock]:
    """Open the lock of a plugin, not yet taken, and release it at the end.

        with instance_lock("MyWorker") as lock:
            while not lock.try_acquire():
                await anyio.sleep(RETRY)

    Args:
        plugin_id: The plugin's id.
        folder: For tests and local agents; the one place per user (`lock_folder`) where it is None. It is made private.

    Raises:
        StoreError: The folder cannot be used.
    """
    lock = InstanceLock(make_private(folder or lock_folder()) / f"{plugin_id}.lock")
    try:
        yield lock
    finally:
        lock.release()


class Launcher:
    """The process that launched this one, remembered at start."""

    def __init__(self, gone: Callable[[], bool]) -> None:
        self._gone = gone

    @classmethod
    def remember(cls, *, platform: str = sys.platform) -> "Launcher":
        """Remember who launched this process. Call it early: one who is gone by then is not missed on POSIX."""
        return cls(_by_process_table() if platform == "win32" else _by_parent_id())

    def gone(self) -> bool:
        """Return whether the launcher has ended."""
        return self._gone()


def _by_parent_id() -> Callable[[], bool]:
    """POSIX: an orphan gets another parent at once."""
    parent = os.getppid()
    return lambda: os.getppid() != parent


def _by_process_table() -> Callable[[], bool]:
    """Windows: the parent's id stays, and may be given to another process; its creation time tells them apart."""
    import psutil  # not installed on Linux

    parent = psutil.Process().parent()
    return lambda: parent is None or not parent.is_running()


def refuse_job(environ: Mapping[str, str]) -> None:
    """Refuse to run as a job task: the agent sets `KEEPER_JOB_ID` for those, never for plugins.

    Raises:
        StartedAsJob: The variable is set.
    """
    if job := environ.get(JOB_ID_VARIABLE):
        raise StartedAsJob(job)
