"""A session in which something was skipped fails."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CONFTEST: Final = Path(__file__).parents[1] / "conftest.py"


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text("utf-8"), "utf-8")
    (folder / "test_it.py").write_text(f"import pytest\n{text}\ndef test_other(): pass\n", "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.skip\ndef test_one(): pass",
        "def test_one(): pytest.skip('no broker')",
        "pytest.importorskip('no_such_module')",
        "@pytest.mark.xfail\ndef test_one(): assert False",
    ],
    ids=["mark", "call", "module", "xfail"],
)
def test_a_session_with_a_skipped_test_fails_and_names_it(tmp_path: Path, text: str) -> None:
    done = run(tmp_path, text)
    assert done.returncode != 0, done.stdout
    assert "test_it.py" in done.stdout.partition("a test runs, or it goes")[0].splitlines()[-1]


def test_a_session_without_one_succeeds(tmp_path: Path) -> None:
    assert run(tmp_path, "").returncode == 0
