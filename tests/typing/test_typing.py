"""What the checkers say about right and wrong uses: `api.py` is clean, and every line of `wrong.py` is refused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]

Found = set[tuple[str, int]]
"""File name and line of each error."""


def mypy(*files: Path) -> Found:
    ran = _run("mypy", "--no-error-summary", "--no-pretty", *map(str, files))
    found = re.findall(r"^(.*?):(\d+)(?::\d+)?: error: ", ran.stdout, re.MULTILINE)
    assert bool(found) is bool(ran.returncode), ran.stdout + ran.stderr
    return {(Path(name).name, int(line)) for name, line in found}


def pyright(*files: Path) -> Found:
    ran = _run("pyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files))
    try:
        found: list[dict[str, Any]] = json.loads(ran.stdout)["generalDiagnostics"]
    except (ValueError, LookupError):
        pytest.fail(ran.stdout + ran.stderr)
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found}


def _run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170, check=False)


@pytest.mark.timeout(180)  # the first run of a checker reads every library
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_right_uses_are_accepted_and_wrong_ones_refused(checker: Callable[..., Found], tmp_path: Path) -> None:
    """The mutant shows that the check can fail: one error is not ignored there, and one ignore has lost its error."""
    lines = (HERE / "wrong.py").read_text("utf-8").splitlines()
    bare = _line(lines, 'publish(Question("x"), severity="high")')
    lines[bare - 1] = lines[bare - 1].partition("  # type: ignore")[0]
    healed = _line(lines, "Publisher[Finding](42)")
    lines[healed - 1] = lines[healed - 1].replace("42", '"Numbers"')
    mutant = tmp_path / "mutant_of_wrong.py"
    mutant.write_text("\n".join(lines), "utf-8")

    found = checker(HERE / "api.py", HERE / "wrong.py", mutant)

    assert found == {(mutant.name, bare), (mutant.name, healed)}


def _line(lines: list[str], text: str) -> int:
    (number,) = (number for number, line in enumerate(lines, 1) if text in line)
    return number
