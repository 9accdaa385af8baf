"""Folders that belong to one user: where they are, that nobody else can read or prepare them, and files in them.

Nothing in the places themselves depends on who asks or how a process was started, but for the overrides named below.
"""

import os
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import StoreError

DATA_DIR_VARIABLE: Final = "KEPM_DATA_DIR"
_NAME: Final = "kepm-plugin"


def data_folder(
    plugin_id: str,
    given: Path | None,
    environ: Mapping[str, str],
    *,
    platform: str = sys.platform,
    root: bool | None = None,
) -> Path:
    """Return where a plugin keeps its files; nothing is created.

    A folder per plugin id, always: below `given` (`--data-dir`), else below `KEPM_DATA_DIR`, else below the platform's
    state folder for services: `/var/lib/kepm-plugin`, `%ProgramData%\\kepm-plugin`,
    `/Library/Application Support/kepm-plugin`. A process that is not root cannot write there on Linux and macOS and
    gets its user's state folder, which is our addition: `$XDG_STATE_HOME` or `~/.local/state`, and
    `~/Library/Application Support`, with `kepm-plugin` below.
    """
    chosen = given or (Path(environ[DATA_DIR_VARIABLE]) if environ.get(DATA_DIR_VARIABLE) else None)
    if chosen is not None:
        return chosen.absolute() / plugin_id
    root = _is_root() if root is None else root
    if platform == "win32":
        base = Path(environ.get("ProgramData", r"C:\ProgramData"))
    elif platform == "darwin":
        base = Path("/Library/Application Support") if root else _home() / "Library/Application Support"
    elif root:
        base = Path("/var/lib")
    else:
        state = Path(environ.get("XDG_STATE_HOME", ""))
        base = state if state.is_absolute() else _home() / ".local/state"
    return base / _NAME / plugin_id


def lock_folder(*, platform: str = sys.platform, root: bool | None = None) -> Path:
    """Return where the locks of this user's plugins lie; nothing is created.

    The environment has no say, but for the home folder on Windows: two copies of a plugin must meet here however each
    was started. For root it is a folder that the system empties at boot and nobody else can write to, so that
    nobody else can take the name first. For other users it is in the home folder: `/tmp` is open to everybody and
    swept by age, and `/run/user` comes and goes with logins. A home that several machines share makes one copy of
    all of theirs.
    """
    root = _is_root() if root is None else root
    if platform == "win32":
        return Path.home() / "AppData/Local" / f"{_NAME}-locks"
    if root:
        return Path("/var/run" if platform == "darwin" else "/run") / _NAME
    return _home() / ("Library/Application Support" if platform == "darwin" else ".local/state") / f"{_NAME}-locks"


def make_private(folder: Path) -> Path:
    """Make sure that a folder exists, belongs to this user and is open to nobody else (mode 0700); return it.

    On Windows a new folder gets an access list of its owner, SYSTEM and the administrators (Python 3.11.10 and later);
    one that exists is taken as it is.

    Raises:
        StoreError: It cannot be made, is no folder, or is somebody else's.
    """
    try:
        for above in reversed(folder.parents):
            # Open to all at most for reading, whatever the umask of who launched us: who may write there may rename it.
            above.mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):  # a symbolic link included: whoever made it chooses where it leads
            raise StoreError(f"{folder} is not a folder; remove it, or choose another place")
        if sys.platform != "win32":
            if found.st_uid != os.geteuid():
                raise StoreError(
                    f"{folder} belongs to user {found.st_uid}, this process is user {os.geteuid()}; "
                    "remove it, or choose another place"
                )
            if stat.S_IMODE(found.st_mode) != 0o700:
                folder.chmod(0o700)
    except OSError as exc:
        raise StoreError(f"{folder} cannot be used: {exc.strerror}; make it writable, or choose another place") from exc
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file of a private folder: at once, for this user alone, and so that it survives a power cut.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    placed = False
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        placed = True
    finally:
        if not placed:
            with suppress(OSError):
                Path(name).unlink()
    if sys.platform != "win32":  # there a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def set_aside(path: Path) -> str:
    """Rename a file that cannot be used, so that somebody can look at it; return its new name, "" where it is gone."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    try:
        path.replace(aside)
    except OSError:
        return ""
    return aside.name


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _home() -> Path:
    """Return the home folder from the user database: the variable `HOME` differs between ways to start a process."""
    if sys.platform == "win32":
        return Path.home()
    import pwd

    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        raise StoreError(f"user {os.geteuid()} has no home folder; name a folder with --data-dir") from None
