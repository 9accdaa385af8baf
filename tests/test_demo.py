"""`make demo`, as a newcomer runs it: with files of the caller's own, without a broker, and interrupted."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from secrets import token_hex
from typing import Final

import psutil
import pytest

REPOSITORY: Final = Path(__file__).parent.parent
WITHIN: Final = 110
"""Seconds; the demo has to end by itself within two minutes."""

STEPS: Final = (
    r"=== 1\. The manifest",
    r'"MyWorker/Commands/scan"',
    r"=== 2\. A local agent launches the plugin",
    r"agent .*launched MyWorker: process \d+",
    r"=== 3\. The command `scan`",
    r'"kind": "set-uid", "path": "{planted}"',
    r"=== 4\. The plugin's records",
    r'"source": "MyWorker".*"topic": "MyWorker/Commands/scan"',
    r"=== 5\. A setting is changed",
    r"API: MyWorker: setting scan\.root was written",
    r'"root": "[^"]*scanned later"',
    r"=== 6\. The broker is killed",
    r"nats ended; clients are dropped",
    r"nats accepts again",
    r"ok: nats was process \d+, is \d+",
    r"=== 7\. The plugin answers again",
    r'"ok": true, "result": \{{"forgotten": 1\}}',
    r"=== 8\. The end",
    r"ok: nothing that it started is left",
    r"^The demo has shown all of it\.$",
)
"""Lines that come one after the other, with others between them."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which the demo finds no mosquitto."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEMO_", "MAKE"))}
    return kept | {"PATH": "/usr/bin:/bin", "DEMO_BROKER": "nats"} | more


def demo(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run the demo in the virtual environment of the tests; nothing is installed."""
    command = ["make", "demo", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.dev"]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False
    )


@pytest.mark.timeout(WITHIN + 10)
def test_the_demo_shows_every_step_in_order(tmp_path: Path) -> None:
    planted = tmp_path / "some folder" / "deep" / f"tool-{token_hex(8)}"
    planted.parent.mkdir(parents=True)
    planted.touch()
    planted.chmod(0o4711)
    done = demo(environment(DEMO_SCAN_ROOT=str(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = iter(done.stdout.splitlines())
    for step in STEPS:
        pattern = step.format(planted=re.escape(str(planted)))
        assert any(re.search(pattern, line) for line in lines), f"{pattern!r} is missing:\n{done.stdout}"
    assert list(tmp_path.rglob("*")) == [tmp_path / "some folder", planted.parent, planted], "it plants nothing there"


def test_a_step_that_does_not_show_what_it_must_ends_the_demo(tmp_path: Path) -> None:
    done = demo(environment(DEMO_SCAN_ROOT=str(tmp_path)))
    assert done.returncode != 0
    assert re.search(r"^demo: FAILED: .*set-uid", done.stderr, re.MULTILINE)
    assert "=== 4." not in done.stdout


def test_the_demo_makes_its_own_file_and_leaves_nothing_when_it_is_interrupted(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(REPOSITORY / "packaging" / "demo.py")],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any("set-uid file(s) that are really there" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []
    commands = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert [command for command in commands if str(tmp_path) in command] == []
