"""A real bundle: its files, its manifest, and its process under a local agent."""

import contextlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.conftest import BUILD_WITHIN, HERE, PLUGIN, Frozen, its_place_of_the_user, run_python
from tests.e2e.agent_process import AgentProcess, agent_process

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 60)

NOT_ON_AN_ENDPOINT = [
    *("PyInstaller", "_pytest", "attr", "cryptography", "hypothesis", "mypy", "psutil", "pydantic", "pytest", "rich"),
    *("starlette", "tkinter", "trio", "typer", "uvicorn", "watchfiles"),
    *("kepm_plugin.bundle", "kepm_plugin.devagent", "kepm_plugin.testing"),
]


@pytest.fixture(scope="module")
def agent(frozen: Frozen, tmp_path_factory: pytest.TempPathFactory) -> Generator[AgentProcess]:
    """A local agent in another folder, with an empty PATH, which its plugins inherit."""
    with (
        its_place_of_the_user(),
        contextlib.chdir(tmp_path_factory.mktemp("elsewhere")),
        agent_process(frozen.root, env={"PATH": "", "SOME_VARIABLE": "kept"}) as agent,
    ):
        yield agent


def asked(agent: AgentProcess, command: str, **payload: object) -> Any:
    answer = agent.control.send(PLUGIN, command, payload)
    assert answer["ok"], answer
    return answer["result"]


# --- the process ------------------------------------------------------------------------------------------------------


def test_the_frozen_plugin_answers_a_scan(agent: AgentProcess, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.touch()
    planted.chmod(0o4755)
    asked(agent, "process")  # It runs, so that the setting is a change to it.
    mark = agent.mark()
    agent.control.set_setting(PLUGIN, "scan.root", str(tmp_path))
    agent.until(rf"^{PLUGIN} .*settings\.changed", after=mark)
    report = asked(agent, "scan")
    assert [(one["kind"], one["path"]) for one in report["findings"]] == [("set-uid", str(planted))]


def test_the_process_that_connects_is_the_one_that_was_launched(agent: AgentProcess, frozen: Frozen) -> None:
    told = asked(agent, "process")
    launched = agent.plugin_process(PLUGIN)
    assert told["pid"] == launched.pid
    assert launched.children() == []
    assert Path(told["program"]) == frozen.program
    assert len(agent.lines(rf"^agent +launched {PLUGIN}:")) == 1


def test_it_needs_no_path_and_no_folder_of_its_own(agent: AgentProcess, frozen: Frozen) -> None:
    told = asked(agent, "process")
    assert told["environment"]["PATH"] == ""
    assert not Path(told["folder"]).is_relative_to(frozen.folder)


def test_what_only_a_developer_needs_is_not_in_it(agent: AgentProcess) -> None:
    assert asked(agent, "process", modules=[*NOT_ON_AN_ENDPOINT, "aiomqtt"])["found"] == ["aiomqtt"]


def test_a_program_that_it_starts_finds_its_own_libraries(agent: AgentProcess, frozen: Frozen) -> None:
    inherited = asked(agent, "program")
    assert inherited["SOME_VARIABLE"] == "kept"
    assert {name: value for name, value in inherited.items() if str(frozen.folder) in value} == {}


def test_a_worker_of_multiprocessing_is_no_second_plugin(agent: AgentProcess) -> None:
    assert asked(agent, "worker") == agent.plugin_process(PLUGIN).pid


def deadletters(frozen: Frozen, *arguments: str) -> str:
    """Run a command as an operator of an endpoint does: with the plugin's program, beside the running plugin."""
    done = subprocess.run(
        [frozen.program, "deadletters", *arguments],
        cwd="/",
        env={name: value for name, value in os.environ.items() if name == "XDG_STATE_HOME"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_its_dead_letters_are_listed_and_replayed_while_it_runs(agent: AgentProcess, frozen: Frozen) -> None:
    asked(agent, "process")
    assert not agent.control.send(PLUGIN, "process", {"modules": "no list"})["ok"]
    (letter,) = json.loads(deadletters(frozen, "list", "--json"))
    assert (letter["topic"], letter["reason"]) == (f"{PLUGIN}/Commands/process", "payload mismatch")
    number = str(letter["id"])
    assert '"modules": "no list"' in deadletters(frozen, "show", number)
    mark = agent.mark()
    assert "1 dead letter put back" in deadletters(frozen, "replay", number)
    agent.until(rf"^{PLUGIN} .*messages\.replayed", after=mark)
    agent.until(rf"^{PLUGIN} .*message\.mismatched", after=mark)
    (again,) = json.loads(deadletters(frozen, "list", "--json"))
    assert again["id"] != letter["id"]
    assert "1 dead letter deleted" in deadletters(frozen, "purge", "--all")


def test_when_asked_to_stop_it_ends_well(agent: AgentProcess) -> None:
    asked(agent, "process")
    mark = agent.mark()
    agent.plugin_process(PLUGIN).send_signal(signal.SIGTERM)
    agent.until(rf"^{PLUGIN} .*ended with code 0\b", after=mark)


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "kepm_plugin", "gen-manifest", "frozen_worker.worker:FrozenWorker"),
        ("-m", "kepm_plugin", "gen-manifest", "frozen_worker/worker.py"),
        ("-m", "frozen_worker.worker", "gen-manifest"),
        ("frozen_worker/worker.py", "gen-manifest"),
    ],
    ids=["module", "path", "-m", "script"],
)
def test_frozen_and_in_every_other_way_the_manifest_is_the_same(frozen: Frozen, command: tuple[str, ...]) -> None:
    done = run_python(*command, cwd=HERE)
    assert done.returncode == 0, done.stderr.decode()
    made = subprocess.run(
        [frozen.program, "gen-manifest"], cwd="/", env={}, capture_output=True, timeout=30, check=True
    )
    assert made.stdout == done.stdout == frozen.manifest.read_bytes()


def test_the_manifest_has_the_handlers_of_both_modules_and_no_arguments(frozen: Frozen) -> None:
    manifest = json.loads(frozen.manifest.read_bytes())
    subscribed = manifest["metadata"]["mqttTopics"]["subscribe"]
    assert {f"{PLUGIN}/Commands/scan", f"{PLUGIN}/Commands/process"} <= set(subscribed)
    assert "arguments" not in manifest
    assert frozen.root / manifest["executablePath"] == frozen.program


def test_the_frozen_plugin_can_check_its_manifest_where_no_python_is(frozen: Frozen) -> None:
    for command in (["validate"], ["gen-manifest", "--check"]):
        done = subprocess.run(
            [frozen.program, *command, frozen.manifest], env={}, capture_output=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_only_the_owner_may_write_and_everybody_may_read(frozen: Frozen) -> None:
    for path in [frozen.manifest, frozen.folder, *frozen.folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            assert path.resolve().is_relative_to(frozen.folder)
        elif path.is_dir() or path == frozen.program:
            assert (path, mode) == (path, 0o755)
        else:
            assert (path, mode & ~0o111) == (path, 0o644)


def test_nothing_else_is_below_the_root(frozen: Frozen) -> None:
    of_the_agent = {"Log", ".dev", "appsettings.json"}
    assert {path.name for path in frozen.root.iterdir()} - of_the_agent == {"Plugins"}
    assert {path.name for path in (frozen.root / "Plugins").iterdir()} == {"bin", f"{PLUGIN}.json"}
    assert list(frozen.folder.parent.iterdir()) == [frozen.folder]
