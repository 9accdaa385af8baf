"""The worker, hosted in memory: no agent and no broker, everything else is real."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.errors import SettingsError
from kepm_plugin.testing import Hosted, hosted
from my_worker.my_worker import MyWorker, owner

SET_UID, SET_GID, WORLD_WRITABLE = 0o4755, 0o2755, 0o666


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that is scanned."""
    return tmp_path


@pytest.fixture
async def host(root: Path) -> AsyncGenerator[Hosted[MyWorker]]:
    """The running worker."""
    async with hosted(MyWorker, settings={"scan.root": str(root)}) as host:
        yield host


def plant(path: Path, mode: int) -> None:
    """Make a file, and the folders on the way to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(mode)


async def scan(host: Hosted[MyWorker], **request: object) -> dict[str, Any]:
    """Return the report."""
    answer = await host.command("scan", **request)
    assert answer["ok"], answer
    report: dict[str, Any] = answer["result"]
    return report


def found(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return kind and path, relative to what was scanned."""
    return [(one["kind"], os.path.relpath(one["path"], report["root"])) for one in report["findings"]]


async def test_a_set_uid_file_is_listed_with_mode_and_owner(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "bin" / "su", SET_UID)
    report = await scan(host)
    assert report["findings"] == [
        {
            "kind": "set-uid",
            "path": str(root / "bin" / "su"),
            "mode": "-rwsr-xr-x",
            "owner": owner(os.getuid()),
            "new": True,
        }
    ]
    assert report["counts"] == {"set-uid": 1}
    assert not report["truncated"]


async def test_what_is_a_finding_and_what_is_not(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "both", 0o6755)
    plant(root / "everybody", WORLD_WRITABLE)
    plant(root / "plain", 0o755)
    for name, mode in {"open": 0o777, "sticky": 0o1777, "group": 0o2775}.items():
        (root / name).mkdir()
        (root / name).chmod(mode)
    (root / "link").symlink_to("everybody")
    os.mkfifo(root / "pipe")
    (root / "pipe").chmod(WORLD_WRITABLE)
    assert found(await scan(host)) == [
        ("set-gid", "both"),
        ("set-uid", "both"),
        ("world-writable", "everybody"),
        ("world-writable", "open"),
    ]


async def test_links_are_not_followed_neither_in_circles_nor_out(host: Hosted[MyWorker], root: Path) -> None:
    (root / "circle").symlink_to(root)
    (root / "out").symlink_to("/usr")
    report = await scan(host)
    assert (report["findings"], report["examined"], report["skipped"]) == ([], 2, 0)


async def test_the_limit_bounds_the_list_but_not_the_counts(host: Hosted[MyWorker], root: Path) -> None:
    for number in range(5):
        plant(root / f"{number}", WORLD_WRITABLE)
    await host.change_setting("scan.limit", 2)
    report = await scan(host)
    assert found(report) == [("world-writable", "0"), ("world-writable", "1")]
    assert report["counts"] == {"world-writable": 5}
    assert report["truncated"]


async def test_the_depth_is_that_of_the_settings(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "1", SET_GID)
    plant(root / "a" / "2", SET_GID)
    plant(root / "a" / "b" / "3", SET_GID)
    await host.change_setting("scan.depth", 2)
    assert found(await scan(host)) == [("set-gid", "1"), ("set-gid", "a/2")]
    await host.change_setting("scan.depth", 3)
    assert ("set-gid", "a/b/3") in found(await scan(host))


async def test_a_scan_that_takes_too_long_reports_what_it_has(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "su", SET_UID)
    await host.change_setting("scan.seconds", 1e-9)
    report = await scan(host)
    assert report["truncated"]


async def test_only_what_the_last_report_did_not_have_is_new(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "old", SET_UID)
    await scan(host)
    plant(root / "recent", SET_UID)
    assert [one["new"] for one in (await scan(host))["findings"]] == [False, True]


async def test_after_a_reset_everything_is_new_again(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "su", SET_UID)
    await scan(host)
    assert (await host.command("reset"))["result"] == {"forgotten": 1}
    assert [one["new"] for one in (await scan(host))["findings"]] == [True]


async def test_a_request_may_name_a_folder_in_the_root(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / "bin" / "su", SET_UID)
    plant(root / "lib" / "helper", SET_UID)
    assert found(await scan(host, folder="lib")) == [("set-uid", "helper")]


@pytest.mark.parametrize("folder", ["..", "/etc", "link", "missing", "file", "a\0b", 7])
async def test_a_request_cannot_leave_the_root_or_name_nonsense(
    host: Hosted[MyWorker], root: Path, folder: object
) -> None:
    (root / "link").symlink_to("/")
    plant(root / "file", 0o644)
    answer = await host.command("scan", folder=folder)
    assert not answer["ok"]
    assert answer["error"] != "internal error"


async def test_a_root_that_is_gone_is_said(host: Hosted[MyWorker], root: Path) -> None:
    await host.change_setting("scan.root", str(root / "gone"))
    answer = await host.command("scan")
    assert "No such file" in answer["error"]


async def test_a_setting_that_breaks_its_rule_is_refused_and_the_last_one_kept(
    host: Hosted[MyWorker], root: Path
) -> None:
    with pytest.raises(SettingsError, match=r"scan\.root"):
        await host.change_setting("scan.root", "relative/folder")
    assert (await scan(host))["root"] == str(root)


async def test_a_name_that_is_no_text_can_be_reported(host: Hosted[MyWorker], root: Path) -> None:
    plant(root / os.fsdecode(b"\xff\n"), SET_UID)
    assert (await scan(host))["findings"][0]["path"] == rf"{root}/\xff" + "\n"


async def test_what_cannot_be_read_is_counted(
    host: Hosted[MyWorker], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(root / "closed" / "su", SET_UID)
    plant(root / "su", SET_UID)
    real = os.open

    def refuse(path: Any, flags: int, **options: Any) -> int:  # root may read everything, so modes would not do
        if path == "closed":
            raise PermissionError(path)
        return real(path, flags, **options)

    monkeypatch.setattr(os, "open", refuse)
    report = await scan(host)
    assert (found(report), report["skipped"]) == ([("set-uid", "su")], 1)


async def test_what_vanishes_during_a_scan_is_counted(
    host: Hosted[MyWorker], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(root / "a", WORLD_WRITABLE)
    plant(root / "b", WORLD_WRITABLE)

    def remove_the_other(uid: int) -> str:
        for name in ("a", "b"):
            (root / name).unlink(missing_ok=True)
        return "somebody"

    monkeypatch.setattr("my_worker.my_worker.owner", remove_the_other)
    report = await scan(host)
    assert (len(report["findings"]), report["skipped"]) == (1, 1)
