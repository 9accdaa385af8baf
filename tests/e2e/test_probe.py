"""A real plugin process under a real agent process: what is promised of both together."""

import signal
import socket
import ssl
import threading
from contextlib import suppress

import httpx
import pytest

from kepm_plugin.errors import AgentError
from tests.e2e.agent_process import AgentProcess, agent_process
from tests.e2e.conftest import Running, Site

DRAIN = 2.0
"""The probe's drain deadline."""


def command_in_thread(
    agent: AgentProcess, command: str, *, timeout: float = 5, **payload: object
) -> tuple[threading.Thread, list[dict[str, object]]]:
    """Send a command whose answer comes later, or never."""
    answers: list[dict[str, object]] = []

    def send() -> None:
        with suppress(AgentError):
            answers.append(agent.control.send("Probe", command, payload, timeout=timeout))

    thread = threading.Thread(target=send)
    thread.start()
    return thread, answers


def test_a_command_is_handled_answered_and_logged(running: Running) -> None:
    agent = running.agent
    answer = agent.control.send("Probe", "echo", {"x": 1})
    assert answer["ok"]
    assert answer["result"]["x"] == 1
    assert answer["result"]["pid"] == agent.plugin_process("Probe").pid
    agent.until(r"^Probe .*handler\.done.*Commands/echo")


def test_settings_are_read_written_and_reverted(running: Running) -> None:
    agent = running.agent
    assert agent.control.send("Probe", "echo")["result"]["greeting"] == "hello"
    mark = agent.mark()
    agent.control.set_setting("Probe", "probe.greeting", "good day")
    agent.until(r"^Probe .*settings\.changed.*greeting", after=mark)
    assert agent.control.send("Probe", "echo")["result"]["greeting"] == "good day"
    mark = agent.mark()
    agent.control.revert_settings("Probe")
    agent.until(r"^Probe .*settings\.changed.*greeting", after=mark)
    assert agent.control.send("Probe", "echo")["result"]["greeting"] == "hello"


def test_a_stranger_gets_403_and_no_mqtt_connection(running: Running) -> None:
    agent = running.agent
    place = agent.control.describe()
    answer = httpx.get(f"{place['api_base']}/api/PluginSettings/Probe", verify=False, trust_env=False)  # noqa: S501
    assert answer.status_code == 403
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(tuple(place["broker"]), timeout=5) as raw, tls.wrap_socket(raw) as sock:
        sock.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05Probe")
        answered = b"".join(iter(lambda: sock.recv(100), b""))
    assert answered in (b"", b"\x20\x02\x00\x05"), "closed, at most after a refusing CONNACK"


def test_what_the_manifest_lacks_is_refused_by_us_and_ignored_by_the_agent(running: Running) -> None:
    agent = running.agent
    mark = agent.mark()
    result = agent.control.send("Probe", "undeclared")["result"]
    assert result["acknowledged"], "the broker does not tell"
    assert "Elsewhere/Commands/run" in result["refused"]
    agent.until(r"(?i)(denied|ignored|dropped).*Elsewhere/Commands/run", after=mark)


def test_a_running_handler_finishes_and_is_answered_when_the_plugin_is_stopped(site: Site, engine: str) -> None:
    with agent_process(site.root, "--broker", engine) as agent:
        agent.control.send("Probe", "echo")
        thread, answers = command_in_thread(agent, "slow", seconds=1.0)
        agent.until(r"^Probe .*noted: slow begun")
        mark = agent.mark()
        agent.plugin_process("Probe").send_signal(signal.SIGTERM)
        agent.until(r"^Probe .*ended with code 0\b", after=mark)
        thread.join(10)
        assert [answer["result"] for answer in answers] == ["finished"]


@pytest.mark.parametrize("kind", ["await", "thread", "loop", "executor", "stubborn"])
def test_a_handler_that_never_ends_does_not_keep_the_plugin(site: Site, kind: str) -> None:
    with agent_process(site.root, measured=False) as agent:
        agent.control.send("Probe", "echo")
        thread, _ = command_in_thread(agent, f"hang/{kind}", timeout=1)
        agent.until(rf"^Probe .*noted: hang {kind}")
        process = agent.plugin_process("Probe")
        process.send_signal(signal.SIGTERM)
        process.wait(DRAIN + 1)
        agent.until(r"^Probe .*ended with code 73\b")
        agent.control.stop("Probe")
        thread.join(15)


def test_knobs_reach_what_watches_the_event_loop_of_a_process(site: Site) -> None:
    with agent_process(site.root, measured=False) as agent:
        agent.control.send("Probe", "echo")
        agent.control.set_setting("Probe", "kepm.drain", "0.5")
        agent.control.set_setting("Probe", "kepm.stall.seconds", "60")
        agent.until(r"^Probe .*knobs\.changed.*kepm\.stall\.seconds=60")
        thread, _ = command_in_thread(agent, "hang/loop", timeout=1)
        agent.until(r"^Probe .*noted: hang loop")
        agent.plugin_process("Probe").send_signal(signal.SIGTERM)
        agent.until(r"^Probe .*0\.5 s were left to end, and have passed")
        agent.until(r"^Probe .*ended with code 73\b")
        agent.control.stop("Probe")
        thread.join(15)
        assert agent.lines("has blocked the event loop") == []
