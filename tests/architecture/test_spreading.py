"""How tests are spread over processes: files whole, some of them one by one, those with few tests first."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.test_skips import run
from tests.conftest import ONE_BY_ONE

TWO_MORE: Final = "def test_one(): pass\ndef test_two(): pass"


def test_a_file_stays_in_one_process_some_files_in_the_same_and_those_with_few_tests_begin(tmp_path: Path) -> None:
    done = run(tmp_path, "2", 'ONE_BY_ONE = ("test_y.py", "test_z.py")', a=TWO_MORE, b=TWO_MORE, y="", z="")
    assert done.returncode == 0, done.stdout
    passed: list[tuple[str, str]] = re.findall(r"\[(gw\d)\].* PASSED .*test_(\w)\.py::", done.stdout)
    assert sorted(file for _, file in passed) == ["a", "a", "a", "b", "b", "b", "y", "z"]
    where = {file: {worker for worker, name in passed if name == file} for _, file in passed}
    assert all(len(workers) == 1 for workers in where.values()), where
    assert where["y"] == where["z"]
    assert len({worker for worker, _ in passed}) == 2, "both were given something"
    assert [file for worker, file in passed if worker in where["y"]][:2] == ["y", "z"]


def test_a_test_that_hangs_ends_at_its_limit_and_those_after_it_run(tmp_path: Path) -> None:
    hangs = "@pytest.mark.timeout(1)\ndef test_one(): __import__('threading').Event().wait()"
    done = run(tmp_path, "1", a=hangs, b=TWO_MORE)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert re.search(r"^FAILED .*test_a\.py::test_one", done.stdout, re.MULTILINE), done.stdout
    assert "Timeout (>1.0s)" in done.stdout
    assert "1 failed, 4 passed" in done.stdout


@pytest.mark.parametrize("file", ONE_BY_ONE)
def test_what_is_to_run_one_by_one_exists(file: str, pytestconfig: pytest.Config) -> None:
    assert (pytestconfig.rootpath / file).is_file()
