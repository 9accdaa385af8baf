"""The agent as a process of its own: signals, its sudden death, its return."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from kepm_plugin.devagent import ControlClient, Likeness
from kepm_plugin.devagent.__main__ import main, parsed
from kepm_plugin.errors import AgentUnreachable
from tests.devagent.conftest import install, manifest, python

SLOW_END = (
    "import signal, sys, time\n"
    "def end(*_): print('ending', flush=True); time.sleep(0.2); print('ended', flush=True); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "print('waiting', flush=True)\n"
    "time.sleep(600)"
)


class Process:
    """A running `python -m kepm_plugin.devagent`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def read_until(self, text: str) -> str:
        """Return the next line that holds a text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self.lines[-1]
        raise AssertionError(f"{text!r} did not come: {self.lines}")

    def rest(self) -> str:
        """Return what it wrote until its end."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return "\n".join(self.lines)

    def end(self) -> int:
        """Return the exit code when it has ended."""
        return self.process.wait(10)


@contextmanager
def agent(root: Path, *arguments: str, ready: bool = True) -> Generator[Process]:
    """Run an agent; it is killed at the end, where it still lives."""
    command = [sys.executable, "-m", "kepm_plugin.devagent", "--root", str(root), "--broker", "mosquitto", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        running = Process(process)
        try:
            if ready:
                running.read_until("ready: ")
            yield running
        finally:
            process.kill()


def family(pid: int) -> list[psutil.Process]:
    """Return all processes that an agent started."""
    return psutil.Process(pid).children(recursive=True)


def runs(pid: int, name: str) -> bool:
    """Tell whether an agent has started a program of that name."""
    with suppress(psutil.Error):
        return any(name in "".join(process.cmdline()) for process in family(pid))
    return False


def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds of which nothing tells: the system's processes."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(processes: Sequence[psutil.Process]) -> bool:
    """Tell whether all have ended."""
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_plugins_in_good_order_and_leaves_nothing(root: Path, number: int) -> None:
    install(root, manifest("P", arguments=python(SLOW_END)))
    with agent(root) as running:
        running.read_until("waiting")
        started = family(running.pid)
        assert len(started) == 3  # guard, engine, plugin
        os.kill(running.pid, number)
        running.read_until("ending")
        os.kill(running.pid, number)  # an impatient second one changes nothing
        text = running.rest()
        assert running.end() == 0
    assert "ended with code 0" in text
    assert "Traceback" not in text
    assert ended(started)
    assert not (root / ".dev" / "control.json").exists()


def test_the_ready_line_says_where_the_agent_is_and_how_to_send(root: Path) -> None:
    install(root, manifest("P"))
    with agent(root) as running:
        line = running.lines[-1]
        assert f"root {root}" in line
        assert re.search(r"api https://127\.0\.0\.1:\d+, broker 127\.0\.0\.1:\d+ \(mosquitto\)", line)
        assert "kepm-plugin send P COMMAND" in line
        assert "\x1b" not in "".join(running.lines)


def test_nothing_is_left_when_the_agent_is_killed(root: Path) -> None:
    install(root, manifest("P", arguments=python(SLOW_END)))
    with agent(root) as running:
        running.read_until("waiting")
        started = family(running.pid)
        folder = Path(psutil.Process(ControlClient.find(root).describe()["engine_pid"]).cwd())
        running.process.kill()
        until(lambda: ended(started))
    assert not folder.exists()


def test_plugins_can_be_left_alive_when_the_agent_is_killed_but_the_engine_is_not(root: Path) -> None:
    install(root, manifest("P"))
    with agent(root, "--leave-orphans") as running:
        client = ControlClient.find(root)
        plugin = psutil.Process(client.plugins()["P"]["pid"])
        engine = psutil.Process(client.describe()["engine_pid"])
        folder = Path(engine.cwd())
        guard = [process for process in family(running.pid) if process.pid not in (plugin.pid, engine.pid)]
        running.process.kill()
        until(lambda: ended([engine, *guard]))
        assert plugin.is_running()
        assert not folder.exists()
        plugin.kill()
    until(lambda: ended([plugin]))


def test_an_agent_that_was_killed_comes_back_on_the_same_root(root: Path) -> None:
    install(root, manifest("P", color="red"))
    with agent(root, "--leave-orphans") as running:
        before = ControlClient.find(root)
        described = before.describe()
        before.set_setting("P", "color", "blue")
        orphan = psutil.Process(before.plugins()["P"]["pid"])
        running.process.kill()
        running.end()
    with agent(root) as running:
        after = ControlClient.find(root)
        assert after.token != before.token
        again = after.describe()
        assert (again["api_base"], again["broker"]) == (described["api_base"], described["broker"])
        assert after.get_settings("P") == {"color": "blue"}
        assert after.plugins()["P"]["pid"] != orphan.pid
        assert orphan.is_running()
        orphan.kill()


def test_a_stopped_agent_goes_on_when_it_is_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.control_client.PATIENCE", 0.3)
    install(root, manifest("P"))
    with agent(root) as running:
        client = ControlClient.find(root)
        os.kill(running.pid, signal.SIGSTOP)
        with pytest.raises(AgentUnreachable, match="did not answer in time"):
            client.plugins()
        os.kill(running.pid, signal.SIGCONT)
        monkeypatch.setattr("kepm_plugin.devagent.control_client.PATIENCE", 5.0)
        assert client.plugins()["P"]["status"] == "Healthy"
        assert client.plugins()["P"]["launches"] == 1


def test_a_signal_while_it_starts_stops_it_too(root: Path) -> None:
    slow = root / "mosquitto"
    slow.write_text("#!/bin/sh\necho mosquitto version 2.0.0\ncase $1 in -h) ;; *) exec sleep 600 ;; esac\n", "utf-8")
    slow.chmod(0o755)
    path = f"{root}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "kepm_plugin.devagent", "--root", str(root), "--broker", "mosquitto"]
    with subprocess.Popen(command, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: runs(process.pid, "sleep"))
        started = family(process.pid)
        process.terminate()
        assert process.wait(10) == 0
    assert ended(started)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "appsettings.json: "),
        ("[]", "not a JSON object"),
        ('{"settings": {"kestrelhttpsport": 80}}', "Settings:KestrelHttpsPort is 80; it must be a number from 1024"),
        ('{"MqttBrokerSettings": {"Port": "8675"}}', "MqttBrokerSettings:Port is '8675'"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(root: Path, content: str, expected: str) -> None:
    (root / "appsettings.json").write_text(content, encoding="utf-8")
    with agent(root, ready=False) as running:
        text = running.rest()
        assert running.end() == 2
    assert text.startswith("kepm-plugin dev: ")
    assert expected in text
    assert len(text.splitlines()) == 1


def test_an_agent_that_cannot_start_says_why(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(root, manifest("P"))
    with agent(root) as running:
        port = ControlClient.find(root).describe()["api_base"].rpartition(":")[2]
        assert main(["--root", str(root)]) == 67
        assert f"process id {running.pid}" in capsys.readouterr().err
        assert main(["--root", str(root / "other"), "--https-port", port]) == 67
        assert f"port {port} for the API is not free" in capsys.readouterr().err
    for arguments, said in (
        (["--https-port", "99999"], "port 99999 for the API is none; give a number from 1024 to 65535"),
        (["--mqtt-port=-1"], "port -1 for MQTT is none"),
        (["--https-port", "0"], "port 0 for the API is none"),
        (["--https-port", "7001", "--mqtt-port", "7001"], "port 7001 is to be for the API and for MQTT"),
    ):
        assert main(["--root", str(root / "other"), *arguments]) == 2
        assert said in capsys.readouterr().err
    (root / "file").touch()
    assert main(["--root", str(root / "file")]) == 2
    assert "name a folder that you may write to" in capsys.readouterr().err


def test_the_command_line_becomes_options(root: Path) -> None:
    arguments = ["--root", str(root), "--broker", "nats", "--https-port", "7001", "--mqtt-port", "7002"]
    arguments += ["--real-intervals", "--trust-children", "--leave-orphans", "--no-mqtt5", "--no-color"]
    arguments += ["--client-id", "{PluginId}_1", "--registration-delay", "1", "--stop-grace", "2"]
    options = parsed(arguments)
    assert (options.root, options.broker, options.https_port, options.mqtt_port) == (root, "nats", 7001, 7002)
    assert (options.trust_children, options.leave_orphans, options.mqtt5, options.color) == (True, True, False, False)
    assert (options.like.client_id, options.registration_delay, options.stop_grace) == ("{PluginId}_1", 1.0, 2.0)
    assert parsed(["--like", "put_tier=admin", "--like", "log_levels=a, b"]).like == Likeness(
        put_tier="admin", log_levels=("a", "b")
    )
    assert options.checks == (60.0, 30.0)
    assert parsed(["--first-check", "1", "--monitor-interval", "2"]).checks == (1.0, 2.0)
