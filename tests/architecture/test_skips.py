"""A session in which something was skipped fails, also where its tests run in other processes."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CONFTEST: Final = Path(__file__).parents[1] / "conftest.py"
SETTINGS: Final = Path(__file__).parents[2] / "pyproject.toml"

SKIPPED: Final = {
    "mark": "@pytest.mark.skip\ndef test_one(): pass",
    "call": "def test_one(): pytest.skip('no broker')",
    "module": "pytest.importorskip('no_such_module')",
    "xfail": "@pytest.mark.xfail\ndef test_one(): assert False",
}


def run(folder: Path, workers: str, more: str = "", **files: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a session like that of these tests, with `more` in its conftest.

    What stands in a file `test_x.py`, beside a test that passes, is the value of `x`.
    """
    (folder / "conftest.py").write_text(f"{CONFTEST.read_text('utf-8')}\n{more}\n", "utf-8")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{text}\ndef test_other(): pass\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", workers, "-c", str(SETTINGS)]
    return subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)], capture_output=True, text=True, timeout=170, check=False
    )


def named(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return which files are said to have skipped something."""
    lines = [line for line in done.stdout.splitlines() if "a test runs, or it goes" in line]
    return {name for line in lines for name in SKIPPED if f"test_{name}.py" in line}


@pytest.mark.parametrize("kind", SKIPPED)
def test_a_session_with_a_skipped_test_fails_and_names_it(tmp_path: Path, kind: str) -> None:
    done = run(tmp_path, "0", **{kind: SKIPPED[kind]})
    assert done.returncode != 0, done.stdout
    assert named(done) == {kind}


def test_so_does_one_whose_tests_run_in_other_processes(tmp_path: Path) -> None:
    done = run(tmp_path, "1", **SKIPPED)
    assert done.returncode != 0, done.stdout
    assert named(done) == set(SKIPPED)


def test_a_session_without_one_succeeds(tmp_path: Path) -> None:
    done = run(tmp_path, "0", other="")
    assert done.returncode == 0, done.stdout
    assert named(done) == set()
