"""`dev`, `send` and `settings`: a local agent as a process, and what is asked of it."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(project: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start `dev` with arguments; return it when it is ready. It ends with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kepm_plugin", "dev", *map(str, arguments)],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        until(process, "ready: ")
        return process

    yield run
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


def until(process: subprocess.Popen[str], text: str) -> str:
    """Return the first line of a process that holds a text; the test's own time limit bounds the wait."""
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} did not come: {''.join(seen)}")


def told(made: subprocess.CompletedProcess[str]) -> Any:
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_a_target_is_launched_and_answers(start: Start, kepm_plugin: Command, project: Path, tmp_path: Path) -> None:
    root = tmp_path / "agent root"
    start("scanner/worker.py", "single.py", "--root", root)
    answer = told(kepm_plugin("send", "Scanner", "scan", '{"deep": true}', "--root", root))
    assert (answer["ok"], answer["result"]) == (True, {"root": "/etc", "asked": {"deep": True}})
    # Without --root the only agent is meant.
    assert told(kepm_plugin("send", "Single", "ping"))["result"] == "pong"

    assert kepm_plugin("settings", "set", "Scanner", "scan.root", "/opt").stdout == ""
    assert kepm_plugin("settings", "get", "Scanner", "scan.root").stdout == "/opt\n"
    assert told(kepm_plugin("settings", "get", "Scanner"))["scan.root"] == "/opt"
    assert told(kepm_plugin("settings", "status", "Scanner", "--root", root))["changedSettings"] == ["scan.root"]
    assert kepm_plugin("settings", "set", "Scanner", "scan.root", "-5").stderr == ""
    assert kepm_plugin("settings", "get", "Scanner", "scan.root").stdout == "-5\n"
    for key in ("root", "scan.rot"):
        noted = kepm_plugin("settings", "set", "Scanner", key, "/opt")
        assert (noted.returncode, noted.stderr.count("\n")) == (0, 1)
        assert f"stored; {key} is not among the settings in Scanner's file" in noted.stderr
        assert noted.stderr.endswith("; scan.root is meant?\n")
    corrected = kepm_plugin("settings", "set", "Scanner", "tok", "/opt").stderr
    assert corrected.endswith("secret ones\n"), corrected
    assert kepm_plugin("settings", "set", "Scanner", "toke", "/opt").stderr.endswith("secret ones\n"), "tok is a slip"
    assert kepm_plugin("settings", "set", "Scanner", "kepm.log.level", "Debug").stderr == ""
    for arguments in ((), ("Scanner", "--all")):
        made = kepm_plugin("settings", "revert", *arguments)
        assert (made.returncode, made.stderr.count("\n")) == (2, 1)
        assert "name one plugin, or give --all" in made.stderr
    assert kepm_plugin("settings", "revert", "--all").returncode == 0
    assert kepm_plugin("settings", "set", "Scanner", "scan.root", "/opt").stderr == ""
    kepm_plugin("settings", "revert", "Scanner")
    assert kepm_plugin("settings", "get", "Scanner", "scan.root").stdout == "/etc\n"
    made = kepm_plugin("settings", "get", "Scanner", "nothing")
    assert (made.returncode, made.stderr) == (
        69,
        "kepm-plugin: Scanner has no setting 'nothing'; it has scan.root\n",
    )

    made = kepm_plugin("send", "Nobody", "scan")
    assert made.returncode == 69
    assert made.stderr.startswith("kepm-plugin: no plugin 'Nobody'")
    made = kepm_plugin("send", "scanner", "scan")
    assert (made.returncode, made.stderr.count("\n")) == (69, 1)
    assert made.stderr.endswith("; Scanner is meant?\n")
    made = kepm_plugin("send", "Scanner", "Commands/scan", "--timeout", "20")
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "leave out 'Commands/', give 'scan'" in made.stderr
    made = kepm_plugin("send", "Scanner", "scan", '{"no": 1}')
    assert (made.returncode, made.stderr, json.loads(made.stdout)["ok"]) == (1, "", False)
    made = kepm_plugin("dev", "single.py", "--root", root)
    assert (made.returncode, made.stderr.count("\n")) == (67, 1)
    assert "is in use by a local agent" in made.stderr


CONTRACT = """\
client_id = "{PluginId}_{ProcessId}"
correlation_field = "requestId"
answer_ok_field = "success"
"""


def test_a_contract_file_is_handed_on_to_the_targets(start: Start, kepm_plugin: Command, project: Path) -> None:
    file = project / "an agent.toml"
    file.write_text(CONTRACT, "utf-8")
    file.chmod(0o600)
    like = ("client_id={PluginId}_{Suffix}", "correlation=requestId", "answer_ok=success")
    process = start("single.py", "--contract", file.name, *(part for one in like for part in ("--like", one)))
    loaded = until(process, "contract.loaded")
    assert str(file) in loaded
    for name in ("client_id", "correlation_field", "answer_ok_field"):
        assert name in loaded
    answer = told(kepm_plugin("send", "Single", "ping"))
    assert (answer["success"], answer["result"]) == (True, "pong")


def test_a_wrong_contract_file_launches_nothing(kepm_plugin: Command, project: Path) -> None:
    (project / "wrong.toml").write_text("put_teir = 'admin'", "utf-8")
    (project / "wrong.toml").chmod(0o600)
    for arguments, said in (
        (("--contract", "wrong.toml"), "wrong.toml: there is no item 'put_teir'; did you mean 'put_tier'?"),
        (("--contract", "none.toml"), "none.toml cannot be read: No such file or directory"),
        (("--like", "put_teir=admin"), "--like 'put_teir=admin': write NAME=VALUE; put_tier is meant?"),
    ):
        made = kepm_plugin("dev", "single.py", *arguments)
        assert (made.returncode, made.stderr.count("\n"), "Traceback" in made.stderr) == (2, 1, False)
        assert said in made.stderr


def test_a_root_of_its_own_is_gone_when_dev_was_killed(project: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "kepm_plugin", "dev", "single.py"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        found = re.search(r"root (\S+),", until(process, "ready: "))
        assert found is not None
        assert Path(found[1]).is_dir()
        process.kill()
    deadline = time.monotonic() + 20
    while Path(found[1]).exists():  # nothing tells when the guard has done its work
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_changed_source_is_what_runs_next(start: Start, kepm_plugin: Command, project: Path) -> None:
    process = start("scanner/worker.py", "--reload")
    handlers = project / "scanner" / "handlers.py"
    good = handlers.read_text("utf-8")
    assert told(kepm_plugin("send", "Scanner", "scan"))["ok"]

    handlers.with_name("notes.txt").write_text("no source", "utf-8")
    handlers.write_text("def f(:", "utf-8")
    said = until(process, "restarted")
    assert f"handlers.py changed: Scanner was not restarted: {handlers}:1: invalid syntax" in said
    worker = handlers.with_name("worker.py")
    worker.write_text(worker.read_text("utf-8").replace('"Scanner"', '"Renamed"'), "utf-8")
    handlers.write_text(good, "utf-8")
    assert "the id is now 'Renamed' instead of 'Scanner'; start dev anew" in until(process, "the id is now")
    worker.write_text(worker.read_text("utf-8").replace('"Renamed"', '"Scanner"'), "utf-8")
    handlers.write_text(good.replace('"scan"', '"look"'), "utf-8")
    until(process, "launched Scanner")
    assert told(kepm_plugin("send", "Scanner", "look"))["result"]["root"] == "/etc"


def test_a_manifest_of_somebody_else_is_left_alone(kepm_plugin: Command, tmp_path: Path) -> None:
    kepm_plugin("gen-manifest", "single.py", "-o", tmp_path / "Plugins")
    before = (tmp_path / "Plugins" / "Single.json").read_bytes()
    made = kepm_plugin("dev", "scanner/worker.py", "single.py", "--root", tmp_path)
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "Single.json is not from `dev` and is left alone; leave the target out" in made.stderr
    assert [path.name for path in (tmp_path / "Plugins").iterdir()] == ["Single.json"]
    assert (tmp_path / "Plugins" / "Single.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a target, or an agent root with --root"),
        (("single.py", "single:Single"), "two targets have the id 'Single'; leave one of them out"),
        (("nothing.py",), "there is no file nothing.py"),
        (("single.py", "--reload", "--root", "agent"), "--reload watches "),
        (("single.py", "--https-port", "7001", "--mqtt-port", "7001"), "port 7001 is to be for the API and for MQTT"),
        (("single.py", "--root", "single.py"), "single.py/Plugins/Single.json cannot be written"),
    ],
)
def test_an_agent_that_cannot_be_is_refused(kepm_plugin: Command, arguments: tuple[str, ...], said: str) -> None:
    made = kepm_plugin("dev", *arguments)
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert said in made.stderr


@pytest.mark.parametrize("arguments", [("--https-port", "99999"), ("--mqtt-port", "-1"), ("--mqtt-port", "0")])
def test_a_port_that_is_none_is_refused(kepm_plugin: Command, arguments: tuple[str, str]) -> None:
    made = kepm_plugin("dev", "single.py", *arguments)
    assert made.returncode == 2
    assert "Traceback" not in made.stderr
    assert f"Invalid value for '{arguments[0]}'" in made.stderr


@pytest.mark.parametrize(
    ("payload", "said"),
    [("{", "the payload is no JSON: "), ("[1]", "the payload is not a JSON object; write it as in")],
)
def test_a_payload_that_is_no_object_is_refused(kepm_plugin: Command, payload: str, said: str) -> None:
    made = kepm_plugin("send", "Scanner", "scan", payload)
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert said in made.stderr


def test_without_an_agent_there_is_one_line(kepm_plugin: Command) -> None:
    made = kepm_plugin("settings", "status", "Scanner")
    assert (made.returncode, made.stderr.count("\n")) == (67, 1)
    assert "no local agent is running; start one with `kepm-plugin dev`" in made.stderr


@pytest.mark.parametrize("arguments", [["dev", "single.py"], ["send", "Single", "ping"]])
def test_without_the_dev_extra_there_is_one_line(python: Command, arguments: list[str]) -> None:
    code = f"import sys; sys.modules['starlette'] = None\nfrom kepm_plugin.cli import main; main({arguments!r})"
    made = python("-c", code)
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "which is not installed; install kepm-plugin[dev]" in made.stderr
