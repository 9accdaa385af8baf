"""How a bundle comes to its place, and what keeps it from it. PyInstaller is played by a fake, but for one option."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle.conftest import HERE, Finished, run_python

PLUGIN = """
import os

from kepm_plugin import Plugin


class Small(Plugin):
    id = "Small"
    version = os.environ.get("THE_VERSION", "1.0.0")


if __name__ == "__main__":
    Small.main()
"""

Package = Callable[..., Finished]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "agent root"


@pytest.fixture
def package(tmp_path: Path, out: Path) -> Package:
    """Run `package` on a small plugin; `--fake …` goes to the fake."""
    target = tmp_path / "the plugin" / "small.py"
    target.parent.mkdir()
    target.write_text(PLUGIN, "utf-8")
    fake = tmp_path / "fake" / "PyInstaller"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    shutil.copy(HERE / "fake_pyinstaller.py", fake / "__main__.py")

    def run(*options: str, out: Path = out, **variables: str) -> Finished:
        command = ["-m", "kepm_plugin", "package", str(target), "-o", str(out), *(["--"] if options else []), *options]
        return run_python(*command, cwd=tmp_path, first=fake.parent, variables=variables)

    return run


def files(root: Path) -> dict[str, bytes]:
    """Return every file below a folder, with its content."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(done: Finished) -> str:
    """Return the one line of a usage error."""
    told = done.stderr.decode()
    assert (done.returncode, told.count("\n"), done.stdout) == (2, 1, b""), told
    return told


def test_a_bundle_takes_the_place_of_an_older_one_whole(package: Package, out: Path) -> None:
    assert package().returncode == 0
    stale = out / "Plugins" / "bin" / "Small" / "_internal" / "stale.py"
    stale.touch()
    other = out / "Plugins" / "bin" / "Other"
    other.mkdir()
    (out / "Plugins" / "Small.json").write_text("{}")
    assert package().returncode == 0
    assert not stale.exists()
    assert other.exists()
    assert json.loads((out / "Plugins" / "Small.json").read_bytes())["executablePath"] == "Plugins/bin/Small/Small"
    assert [path.name for path in out.iterdir()] == ["Plugins"]


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        ("failure", "PyInstaller ended with code 3: something: the reason"),
        ("silence", "PyInstaller ended with code 3: nothing was said"),
        ("one-file", "PyInstaller made no folder Small; leave out the option that makes it a file"),
        ("no-program", "the frozen program does not run: [Errno 2] No such file or directory"),
        ("missing-module", "the frozen program does not start: ModuleNotFoundError: No module named 'small'"),
    ],
)
def test_what_goes_wrong_is_said_and_an_older_bundle_stays(package: Package, out: Path, fake: str, said: str) -> None:
    package()
    before = files(out)
    assert said in refused(package(f"--fake={fake}"))
    assert files(out) == before


def test_a_plugin_that_declares_something_else_when_frozen_is_refused(package: Package, out: Path) -> None:
    done = package(THE_VERSION="2.0.0")
    assert done.returncode == 65
    assert "another manifest than the code (" in done.stderr.decode()
    assert "2.0.0" in done.stderr.decode()
    assert files(out) == {}


def test_when_the_manifest_cannot_be_written_the_older_program_is_back(package: Package, out: Path) -> None:
    package()
    (out / "Plugins" / "Small.json").unlink()
    (out / "Plugins" / "Small.json" / "x").mkdir(parents=True)
    stale = out / "Plugins" / "bin" / "Small" / "stale.py"
    stale.touch()
    assert "Plugins/bin/Small cannot be written" in refused(package())
    assert stale.exists()
    assert [path.name for path in out.iterdir()] == ["Plugins"]


def test_without_an_older_one_a_failure_leaves_no_program_without_manifest(package: Package, out: Path) -> None:
    (out / "Plugins" / "Small.json" / "x").mkdir(parents=True)
    assert "cannot be written" in refused(package())
    assert list((out / "Plugins" / "bin").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_bundle_is_not_replaced(package: Package, out: Path, tmp_path: Path, kind: str) -> None:
    place = out / "Plugins" / "bin" / "Small"
    place.parent.mkdir(parents=True)
    if kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path)
    assert "Plugins/bin/Small is not a folder; remove it" in refused(package())
    assert os.path.lexists(place)


def test_a_root_that_cannot_be_made_is_said(package: Package, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file/root cannot be written" in refused(package(out=tmp_path / "file" / "root"))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_those_of_an_agent_root_whatever_the_umask(package: Package, out: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert package("--fake=wide-modes").returncode == 0
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(out)): stat.S_IMODE(path.lstat().st_mode)
        for path in out.rglob("*")
        if not path.is_symlink()
    }
    bundle = "Plugins/bin/Small"
    assert modes == {
        "Plugins": 0o755,
        "Plugins/Small.json": 0o644,
        "Plugins/bin": 0o755,
        bundle: 0o755,
        f"{bundle}/Small": 0o755,
        f"{bundle}/_internal": 0o755,
        f"{bundle}/_internal/entry.py": 0o644,
        f"{bundle}/_internal/lib": 0o755,
        f"{bundle}/_internal/lib/one.so": 0o755,
    }
    assert (out / bundle / "_internal" / "two.so").readlink() == Path("lib/one.so")


def test_without_pyinstaller_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(PLUGIN, "utf-8")
    missing = (
        "import sys; sys.modules['PyInstaller'] = None\nfrom kepm_plugin.cli import main; main(['package', 'small.py'])"
    )
    assert "install kepm-plugin[package]" in refused(run_python("-c", missing, cwd=tmp_path))
    assert files(tmp_path / "dist") == {}


def test_the_real_pyinstaller_reads_the_options_that_follow_two_dashes(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(PLUGIN, "utf-8")
    done = run_python("-m", "kepm_plugin", "package", "small.py", "--", "--no-such-option", cwd=tmp_path)
    assert "unrecognized arguments: --no-such-option" in refused(done)
