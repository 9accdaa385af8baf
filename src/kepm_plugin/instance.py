"""One copy of a plugin at a time: the lock that says which, and whether the one who launched us is still there.

Nothing here waits or polls on its own: `runtime` asks as often as it wants to know.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .contract import JOB_ID_VARIABLE
from .errors import StartedAsJob, StoreError
from .folder import lock_folder, make_private
from .holder import Seen, read_record, send, write_record
from .lockfile import locked, unlock

log = logging.getLogger("kepm_plugin.instance")

RETRY: Final = 0.05
"""Seconds between two attempts of a copy that stands by.

No system wakes a waiter that can also be cancelled, so it asks: 20 system calls a second, for as long as two copies are
alive. The lock of a killed holder is seen as free after this time.
"""

LOOK: Final = 0.5
"""Seconds between two looks of such a copy at the one that holds the lock."""

SILENCE: Final = 15.0
"""Seconds without a sign of life after which an orphan that keeps the lock is killed; `mark` comes every five."""


class InstanceLock:
    """The lock of one plugin id, held by at most one process of this user.

    The operating system frees it when its holder ends, however it ends; a holder that is stopped (`SIGSTOP`) keeps it.
    Two objects exclude each other within a process too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None  # its descriptor, while the lock is held
        self._record = path.with_suffix(".holder")
        self._succession = Succession(self._record)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def try_acquire(self) -> bool:
        """Take the lock if it is free; return whether it is held now. Never waits.

        Raises:
            StoreError: The lock's file cannot be used.
        """
        if self.held:
            return True
        try:
            self._file = locked(self.path)
        except OSError as exc:
            raise StoreError(f"the lock {self.path} cannot be used: {exc.strerror}; make it writable") from exc
        if self._file is None:
            return False
        # Without it the next copy waits for as long as this one takes; that is no reason not to handle.
        with suppress(OSError):
            write_record(self._record)
        return True

    def mark(self) -> None:
        """Show to a copy that stands by that this one is alive and serves."""
        with suppress(OSError):
            os.utime(self._record)

    def press(self) -> None:
        """See to it that a holder that is an orphan gives way; for a copy that stands by, again and again."""
        self._succession.press()

    def release(self) -> None:
        """Give the lock to the next one; without it, do nothing."""
        if self._file is not None:
            unlock(self._file)
            self._file = None


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


class Succession:
    """What a copy that stands by does about an orphan that keeps the lock.

    An orphan gives way by itself, unless it is stopped or hangs. One that is stopped is woken (SIGCONT), so that it can
    finish what it has begun and leave. One that shows no sign of life for `SILENCE` is killed: nothing that it holds
    is lost, it is in the journal or unacknowledged. Whose launcher lives is left alone, whatever its state.
    """

    def __init__(self, record: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._record, self._now = record, now
        self._looked = -LOOK
        self._holder: Seen | None = None
        self._mark = 0
        self._silent = self._stopped = 0.0

    def press(self) -> None:
        """Look, at most every `LOOK`, and act where it is time."""
        passed = self._now() - self._looked
        if passed < LOOK or sys.platform == "win32":
            return
        self._looked += passed
        record, mark = read_record(self._record), self._last_mark()
        holder = None if record is None else record.orphan()
        if holder is None or not holder.same(self._holder) or mark != self._mark:
            self._holder, self._mark = holder, mark
            self._silent = self._stopped = passed = 0.0
        if holder is None:
            return
        passed = min(passed, 2 * LOOK)  # a machine that slept has given nobody time
        self._silent += passed
        self._stopped = self._stopped + passed if holder.stopped else 0.0
        if self._silent >= SILENCE:
            self._act("standby.killed", holder, signal.SIGKILL, f"no sign of life for {SILENCE:g} s")
        elif self._stopped >= LOOK:
            self._act("standby.woken", holder, signal.SIGCONT, "it is stopped")

    def _act(self, event: str, holder: Seen, number: int, why: str) -> None:
        self._silent = self._stopped = 0.0
        if send(holder, number):
            reason = f"the copy that holds the lock is an orphan, and {why}"
            log.warning(event, extra={"holder": holder.pid, "reason": reason})

    def _last_mark(self) -> int:
        with suppress(OSError):
            return self._record.stat().st_mtime_ns
        return 0


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
