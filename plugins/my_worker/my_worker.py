"""A worker that looks for files which give away more rights than they should.

`scan` lists set-uid and set-gid programs and what everybody may write to; `reset` makes it forget the last scan.
"""

import logging
import os
import pwd
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Literal

from kepm_plugin import Handler, Message, Plugin, Rejected, Settings, setting

log = logging.getLogger(__name__)  # goes to the agent's KeeperLogger

Kind = Literal["set-gid", "set-uid", "world-writable"]


class WorkerSettings(Settings):
    root: str = setting(default="/usr", key="scan.root", pattern="/.*", description="Folder that scans stay below")
    depth: int = setting(default=12, key="scan.depth", ge=1, le=64, description="Levels below it that are looked at")
    limit: int = setting(default=100, key="scan.limit", ge=1, le=1000, description="Findings that a report lists")
    seconds: float = setting(default=8.0, key="scan.seconds", gt=0, le=60, description="Time that a scan may take")


@dataclass(frozen=True)
class ScanRequest:
    folder: str = ""
    """Relative to `scan.root`; empty for all of it."""


@dataclass(frozen=True, order=True)
class Finding:
    """One reason for concern; a file may give several. In a report they are sorted by these fields."""

    kind: Kind
    path: str
    mode: str
    """As `ls -l` shows it."""
    owner: str
    new: bool = True
    """Whether the report before this one did not have it."""


@dataclass(frozen=True)
class ScanReport:
    root: str
    findings: list[Finding]
    """The first `scan.limit` of them."""
    counts: dict[Kind, int]
    """How many there are of each kind, listed or not."""
    examined: int
    skipped: int
    """What could not be read, or was gone before it could."""
    truncated: bool
    """Whether there were more findings than listed, or the time was up."""
    seconds: float


class MyWorker(Plugin):
    """Lists set-uid, set-gid and world-writable files below a folder."""

    id = "MyWorker"
    name = "My Worker"
    version = "1.0.0"
    platforms = ("Linux", "macOS")  # Windows has no such modes
    settings: WorkerSettings

    known: frozenset[Finding] = frozenset()
    """What the last report listed."""


@MyWorker.command("scan")
class Scan(Handler[MyWorker]):
    """Look below `scan.root`, or below one folder in it."""

    timeout = 90.0  # for a file system that hangs; the scan itself ends after `scan.seconds`

    def handle(self, message: Message[ScanRequest]) -> ScanReport:  # `def`, not `async def`: it runs in a thread
        settings = self.plugin.settings
        walk = Walk(below(settings.root, message.payload.folder), settings.depth, settings.seconds)
        found = nsmallest(settings.limit, walk.findings())
        known, self.plugin.known = self.plugin.known, frozenset(found)
        report = ScanReport(
            root=printable(walk.root),
            findings=[replace(one, new=one not in known) for one in found],
            counts=dict(walk.counts),
            examined=walk.examined,
            skipped=walk.skipped,
            truncated=walk.cut_short or walk.counts.total() > len(found),
            seconds=round(time.monotonic() - walk.began, 3),
        )
        log.info("%s scanned: %d findings in %d files", report.root, walk.counts.total(), report.examined)
        return report


@MyWorker.command("reset")
class Reset(Handler[MyWorker]):
    """Forget the last report, so that everything is new to the next one."""

    async def handle(self, message: Message[dict[str, object]]) -> dict[str, int]:
        known, self.plugin.known = self.plugin.known, frozenset()
        return {"forgotten": len(known)}


class Walk:
    """One way through a tree. It follows no symbolic link, also where a folder is replaced by one meanwhile."""

    def __init__(self, root: str, depth: int, seconds: float) -> None:
        self.root, self.depth = root, depth
        self.began = time.monotonic()
        self.ends = self.began + seconds
        self.counts: Counter[Kind] = Counter()
        self.examined = self.skipped = 0
        self.cut_short = False

    def findings(self) -> Iterator[Finding]:
        """Yield what is found, in no order."""
        return self._inside(self.root, None, f"{self.root.rstrip('/')}/", 1)

    def _inside(self, folder: str, parent: int | None, path: str, level: int) -> Iterator[Finding]:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as exc:
            self._skip(exc)
            return
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if time.monotonic() > self.ends:
                        self.cut_short = True
                        return
                    yield from self._entry(entry, descriptor, path + entry.name, level)
        except OSError as exc:
            self._skip(exc)
        finally:
            os.close(descriptor)

    def _entry(self, entry: os.DirEntry[str], parent: int, path: str, level: int) -> Iterator[Finding]:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as exc:
            self._skip(exc)
            return
        self.examined += 1
        for kind in kinds(status.st_mode):
            self.counts[kind] += 1
            yield Finding(kind, printable(path), stat.filemode(status.st_mode), owner(status.st_uid))
        if stat.S_ISDIR(status.st_mode) and level < self.depth:
            yield from self._inside(entry.name, parent, f"{path}/", level + 1)

    def _skip(self, error: OSError) -> None:
        log.debug("skipped: %s", error)
        self.skipped += 1


def kinds(mode: int) -> Iterator[Kind]:
    """Say what is wrong with a mode.

    A folder that everybody may write to is a finding unless it has the sticky bit, as /tmp has. A folder's set-gid bit
    gives no rights away; links, sockets and devices do not count.
    """
    if stat.S_ISREG(mode):
        if mode & stat.S_ISUID:
            yield "set-uid"
        if mode & stat.S_ISGID:
            yield "set-gid"
    if mode & stat.S_IWOTH and (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and not mode & stat.S_ISVTX)):
        yield "world-writable"


def below(root: str, folder: str) -> str:
    """Return the folder to scan, free of links. Whoever may send commands chooses it, so it must not lead out."""
    try:
        root = os.path.realpath(root)
        path = os.path.realpath(Path(root, folder))
        if os.path.commonpath([root, path]) != root:
            raise Rejected(f"{folder!r} is not below the folder that may be scanned")
        os.scandir(path).close()
    except (OSError, ValueError) as exc:
        raise Rejected(f"{folder or root!r} cannot be scanned: {exc}") from exc
    return path


def owner(uid: int) -> str:
    """Return a user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def printable(path: str) -> str:
    r"""Return a path as JSON can carry it: bytes that are no UTF-8 as `\xff`."""
    return os.fsencode(path).decode(errors="backslashreplace")


if __name__ == "__main__":
    MyWorker.main()
