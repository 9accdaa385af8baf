"""A file that one process has locked: until it ends, however it ends. By the system's own calls alone.

The file is never unlinked, since two processes could then hold two files of one name.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

_held: set[int] = set()  # descriptors of locks that this process has taken


def locked(path: Path) -> int | None:
    """Lock a file, which is made where it is not there, and return its descriptor; None where it is locked already.

    Never waits. Who has opened it twice in one process excludes himself, too.

    Raises:
        OSError: It cannot be opened, or the file system knows no locks.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited by programs that this process starts
    taken = False
    try:
        taken = _lock(file)
    finally:
        if not taken:
            os.close(file)
    if not taken:
        return None
    _held.add(file)
    return file


def unlock(file: int) -> None:
    """Give a lock back."""
    _held.discard(file)
    try:
        _unlock(file)  # closing does not while a program that is just being started has a copy
    finally:
        os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:  # EACCES: another handle has locked this byte
            return False
        return True

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)

    def _leave_to_parent() -> None:
        """A forked child has the parent's open file, and would keep the lock when the parent has gone."""
        while _held:
            with suppress(OSError):
                os.close(_held.pop())

    os.register_at_fork(after_in_child=_leave_to_parent)
