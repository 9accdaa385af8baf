"""Who holds a lock: left on record by the holder, looked up among the system's processes by others.

A number alone names no process: it is given away when its owner has ended. Beside it stand the time of the start, the
command and the machine, as a home folder may be shared by several.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

_PROC: Final = Path("/proc")
_ENDED: Final = ("Z", "X")
"""States of a process that only waits to be collected (proc_pid_stat(5))."""


class Seen(msgspec.Struct, frozen=True):
    """A process that lives, as it was seen.

    Attributes:
        started: When, in the system's own measure; with `pid` it names one process until the machine starts anew.
        stopped: By SIGSTOP or a terminal. What a debugger holds is not: somebody is looking at it.
    """

    pid: int
    started: float
    parent: int
    stopped: bool
    owner: str
    command: tuple[str, ...]

    def same(self, other: "Seen | None") -> bool:
        """Tell whether it is one process, with one command and one owner, whatever its state."""
        return other is not None and (self.pid, self.started, self.owner, self.command) == (
            other.pid,
            other.started,
            other.owner,
            other.command,
        )


def look(pid: int, *, platform: str = sys.platform) -> Seen | None:
    """Return what there is to see of a process; None where it has ended, or is not ours to look at."""
    return _in_proc(pid) if platform == "linux" else _by_psutil(pid)


def _in_proc(pid: int) -> Seen | None:
    folder = _PROC / str(pid)
    try:
        # The name in parentheses may hold anything, parentheses included.
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        command = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        owner = folder.stat().st_uid
    except OSError:
        return None
    state = fields[0].decode()
    if state in _ENDED:
        return None
    words = tuple(os.fsdecode(word) for word in command)
    return Seen(pid, float(fields[19]), int(fields[1]), state == "T", str(owner), words)


def _by_psutil(pid: int) -> Seen | None:
    import psutil  # not installed on Linux

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            status = process.status()
            if status == psutil.STATUS_ZOMBIE:
                return None
            return Seen(
                pid,
                process.create_time(),
                process.ppid(),
                status == psutil.STATUS_STOPPED,
                process.username(),
                tuple(process.cmdline()),
            )
    except psutil.Error:
        return None


def send(process: Seen, number: int) -> bool:
    """Send a signal to this very process; tell whether that was possible."""
    with suppress(OSError):
        if sys.platform == "linux":
            descriptor = os.pidfd_open(process.pid)  # from here on the number means one process
            try:
                if not process.same(look(process.pid)):
                    return False
                signal.pidfd_send_signal(descriptor, number)
                return True
            finally:
                os.close(descriptor)
        if process.same(look(process.pid)):
            os.kill(process.pid, number)
            return True
    return False


def machine() -> str:
    """Return what names this machine's process numbers."""
    if sys.platform == "linux":
        with suppress(OSError):
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    import platform

    return platform.node()


class Record(msgspec.Struct, frozen=True):
    """What a holder leaves: itself, whose parent at that time is the one that launched it."""

    machine: str
    holder: Seen

    def orphan(self) -> Seen | None:
        """Return the holder as it is now, if it lives, is our user's, and has lost its launcher.

        On POSIX an orphan gets another parent at once. Elsewhere nobody is taken for one.
        """
        now, ours = look(self.holder.pid), look(os.getpid())
        if now is None or ours is None or self.machine != machine() or os.name != "posix":
            return None
        return now if now.same(self.holder) and now.owner == ours.owner and now.parent != self.holder.parent else None


def write_record(path: Path) -> None:
    """Put this process on record, in place of another one.

    Raises:
        OSError: It cannot be written.
    """
    ours = look(os.getpid())
    if ours is None:
        path.unlink(missing_ok=True)
        return
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(Record(machine(), ours)))
    new.chmod(0o600)
    new.replace(path)


def read_record(path: Path) -> Record | None:
    """Return what is on record; None where nothing is that can be used."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        holder: dict[str, Any] = found["holder"]
        holder["command"] = tuple(holder["command"])
        return Record(found["machine"], Seen(**holder))
    except (OSError, ValueError, KeyError, TypeError):
        return None
