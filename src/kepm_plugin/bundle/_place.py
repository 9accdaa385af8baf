"""Where a bundle goes, with which modes, and how it takes the place of an older one."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path

from kepm_plugin.errors import UsageError

FOLDER = PROGRAM = 0o755
FILE = 0o644


def check_place(place: Path) -> None:
    """Refuse a place that something other than an older bundle takes, before anything is built.

    Raises:
        UsageError: It is a file or a link.
    """
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UsageError(f"{place} is not a folder; remove it, or build into another one")


def settle(bundle: Path) -> None:
    """Set the modes that an agent root needs: the service account may read and execute, only the owner may write."""
    for folder, _, files in os.walk(bundle):
        Path(folder).chmod(FOLDER)
        for file in (Path(folder) / name for name in files):
            mode = file.lstat().st_mode
            if stat.S_ISREG(mode):  # links have no mode of their own
                file.chmod(PROGRAM if mode & stat.S_IXUSR else FILE)


def install(built: Path, place: Path, manifest: bytes, manifest_path: Path, stage: Path) -> None:
    """Move a bundle and its manifest to their places, both or none. All are on one file system.

    Raises:
        UsageError: They cannot be moved; what was there before is there again.
    """
    draft, old = stage / "draft", stage / "replaced"
    try:
        draft.write_bytes(manifest)
        draft.chmod(FILE)
        for folder in (manifest_path.parent, place.parent):
            _make(folder)
        with ExitStack() as undo:
            if place.exists():
                place.rename(old)
                undo.callback(old.rename, place)
            built.rename(place)
            undo.callback(place.rename, built)
            draft.replace(manifest_path)
            undo.pop_all()
    except OSError as exc:
        raise UsageError(
            f"{place} cannot be written: {exc.strerror}; stop the plugin if it runs from there, or name a folder that "
            "you may write to"
        ) from exc


def _make(folder: Path) -> None:
    """Make a folder with our mode, whatever the umask is; one that exists is left as it is."""
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(FOLDER)
