"""The local agents of this user that run now: one small owner-only file each, in a folder of the user's own.

Standard library only, as `send` and `settings` need it. A file of an agent that was killed stays behind: who reads the
folder asks each agent, and a starting agent clears the leftovers away.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "KEPM_DEV_AGENTS"
"""Environment variable that names another folder, for tests and demonstrations."""

_SUFFIX: Final = ".root"


def live_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder in which this user's running agents are listed."""
    names = os.environ if environment is None else environment
    if names.get(FOLDER):
        return Path(names[FOLDER])
    if sys.platform == "win32":
        folder = Path(names.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif names.get("XDG_RUNTIME_DIR"):
        folder = Path(names["XDG_RUNTIME_DIR"])
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        folder = Path(names.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return folder / "kepm-plugin" / "dev-agents"


def live_file(root: Path) -> Path:
    """Return the file that lists the agent on a root."""
    return live_folder() / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}{_SUFFIX}"


def listed() -> dict[Path, Path]:
    """Return the roots that are listed, each with its file; what runs there, if anything, is for the caller to ask."""
    roots: dict[Path, Path] = {}
    with suppress(OSError):
        for path in sorted(live_folder().glob(f"*{_SUFFIX}")):
            with suppress(OSError, ValueError):
                roots[Path(path.read_text(encoding="utf-8").strip())] = path
    return roots
