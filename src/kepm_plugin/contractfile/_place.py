"""Where the contract file is, and whether its text can be trusted."""

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

from kepm_plugin.errors import UsageError

CONTRACT_FILE: Final = "kepm-contract.toml"
"""Its name beside the plugin's program."""

CONTRACT_VARIABLE: Final = "KEPM_CONTRACT"

LARGEST: Final = 64 * 1024
"""Bytes of a file that are read."""


def find_contract(argument: Path | None, environ: Mapping[str, str], program: Path | None) -> Path | None:
    """Return the file in force: `--contract`, else `KEPM_CONTRACT`, else `kepm-contract.toml` beside the program.

    What was named is returned whether it exists or not; beside the program it need not be there.
    """
    named = argument if argument is not None else environ.get(CONTRACT_VARIABLE) or None
    if named is not None:
        return Path(named).absolute()
    file = None if program is None else program / CONTRACT_FILE
    # Also one that leads nowhere, or is no file: whoever put it there means something by it.
    return file if file is not None and os.path.lexists(file) else None


def beside(module: ModuleType | None, *, frozen: bool, executable: Path) -> Path | None:
    """Return the folder of the plugin's program: a frozen one's own, else that of the file with the plugin's class.

    Never that of an interpreter: what lies beside /usr/bin/python is no plugin's. None where there is no such file.
    """
    if frozen:
        return executable.resolve().parent
    file: str | None = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve().parent


def trusted_text(file: Path) -> bytes:
    """Return what a file holds, where nobody but root and this user can have written it.

    On POSIX both the file and a symbolic link to it must be root's or this user's, and only their owner may write to
    the file. On Windows the folder's access list is what protects it; that is not looked at.

    Raises:
        UsageError: It cannot be read, is no file, is too large, or is open to others.
    """
    try:
        link = file.lstat()
        # Without waiting, should it be a pipe; and looked at when it is open, so that it cannot be exchanged.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{file} is not a file; name the contract file")
            if sys.platform != "win32":
                _check_owner(file, link.st_uid, found)
            with os.fdopen(descriptor, "rb", closefd=False) as opened:
                text = opened.read(LARGEST + 1)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}; name the contract file, or leave it out") from exc
    if len(text) > LARGEST:
        raise UsageError(f"{file} has more than {LARGEST} bytes; that is no contract file")
    return text


def _check_owner(file: Path, linked_by: int, found: os.stat_result) -> None:
    ours = (0, os.geteuid())
    for owner in (linked_by, found.st_uid):
        if owner not in ours:
            raise UsageError(
                f"{file} belongs to user {owner}, and this process is user {ours[1]}: a plugin trusts only a contract "
                "file of its own user or root; chown it, or remove it"
            )
    if mode := stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        who = "everybody" if mode & stat.S_IWOTH else "its group"
        raise UsageError(f"{file} can be written by {who}, and so it is not trusted; chmod go-w it")
