import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from kepm_plugin.errors import StoreError
from kepm_plugin.folder import data_folder, lock_folder, make_private

HOME = Path(pwd.getpwuid(os.geteuid()).pw_dir)


@pytest.mark.parametrize(
    ("platform", "root", "environ", "expected"),
    [
        ("linux", True, {}, Path("/var/lib/kepm-plugin/MyWorker")),
        ("linux", False, {}, HOME / ".local/state/kepm-plugin/MyWorker"),
        ("linux", False, {"XDG_STATE_HOME": "/state"}, Path("/state/kepm-plugin/MyWorker")),
        ("linux", False, {"XDG_STATE_HOME": "relative"}, HOME / ".local/state/kepm-plugin/MyWorker"),
        ("darwin", True, {}, Path("/Library/Application Support/kepm-plugin/MyWorker")),
        ("darwin", False, {}, HOME / "Library/Application Support/kepm-plugin/MyWorker"),
        ("win32", False, {"ProgramData": "D:/Data"}, Path("D:/Data/kepm-plugin/MyWorker")),
        ("win32", False, {}, Path(r"C:\ProgramData") / "kepm-plugin" / "MyWorker"),
        ("linux", True, {"KEPM_DATA_DIR": "/data"}, Path("/data/MyWorker")),
        ("linux", True, {"KEPM_DATA_DIR": ""}, Path("/var/lib/kepm-plugin/MyWorker")),
    ],
)
def test_files_lie_in_a_folder_per_plugin(
    platform: str, root: bool, environ: Mapping[str, str], expected: Path
) -> None:
    assert data_folder("MyWorker", None, environ, platform=platform, root=root) == expected


def test_a_folder_given_by_hand_wins_and_does_not_move_with_the_working_directory() -> None:
    assert data_folder("MyWorker", Path("/given"), {"KEPM_DATA_DIR": "/data"}) == Path("/given/MyWorker")
    assert data_folder("MyWorker", Path("here"), {}) == Path.cwd() / "here/MyWorker"


@pytest.mark.parametrize(
    ("platform", "root", "expected"),
    [
        ("linux", True, Path("/run/kepm-plugin")),
        ("linux", False, HOME / ".local/state/kepm-plugin-locks"),
        ("darwin", True, Path("/var/run/kepm-plugin")),
        ("darwin", False, HOME / "Library/Application Support/kepm-plugin-locks"),
        ("win32", False, Path.home() / "AppData/Local/kepm-plugin-locks"),
    ],
)
def test_locks_lie_in_one_place_per_user(platform: str, root: bool, expected: Path) -> None:
    assert lock_folder(platform=platform, root=root) == expected


def test_the_place_of_locks_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lock_folder(root=False)
    for name in ("HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "/elsewhere")
    assert lock_folder(root=False) == before


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(StoreError, match="--data-dir"):
        data_folder("MyWorker", None, {}, platform="linux", root=False)


def test_a_private_folder_is_made_or_tightened(tmp_path: Path) -> None:
    for folder in (tmp_path / "new" / "one", tmp_path):
        assert make_private(folder) == folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_made_above_it_is_nobody_elses_to_write_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "new" / "deep" / "MyWorker")
    finally:
        os.umask(before)
    for folder in (tmp_path / "new", tmp_path / "new" / "deep"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_link_a_file_and_a_place_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("link", "file", "file/below"):
        with pytest.raises(StoreError, match="choose another place"):
            make_private(tmp_path / name)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(StoreError, match=f"belongs to user {other - 1}, this process is user {other}"):
        make_private(tmp_path / "theirs")
