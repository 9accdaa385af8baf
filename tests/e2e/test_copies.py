"""Two copies of one plugin, in each order, whatever has become of the older one: one handles, and the right one."""

import signal
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from kepm_plugin.devagent.faults import MovePort, NewCertificate
from kepm_plugin.errors import KepmError
from tests.e2e import probe_plugin
from tests.e2e.agent_process import PATIENCE, AgentProcess, agent_process
from tests.e2e.conftest import Site, make_site
from tests.e2e.test_survival import Caller


@contextmanager
def leaving_orphans(site: Site, engine: str) -> Generator[AgentProcess]:
    """An agent that the test ends itself; its plugins may outlive it."""
    agent = AgentProcess(site.root, "--broker", engine, "--leave-orphans", measured=False)
    try:
        yield agent.ready()
    finally:
        agent.end(signal.SIGKILL)


def echo(agent: AgentProcess, number: int, timeout: float = PATIENCE) -> int:
    """Send a numbered command; return the process that handled it."""
    pid: int = agent.control.send("Probe", "echo", {"number": number}, timeout=timeout)["result"]["pid"]
    return pid


def handled(site: Site) -> dict[int, list[int]]:
    """Return which processes handled each numbered command."""
    found: dict[int, list[int]] = {}
    for pid, text in site.ledger():
        if text.isdecimal():
            found.setdefault(int(text), []).append(pid)
    return found


def test_five_restarts_of_the_agent_leave_one_copy_that_serves(site: Site, engine: str) -> None:
    numbers = count(1)
    ends = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    served: list[int] = []
    orphans: list[AgentProcess] = []
    for number in ends:
        with leaving_orphans(site, engine) as agent:
            answer = agent.control.send("Probe", "echo", {}, timeout=PATIENCE)
            assert answer["result"]["pid"] == agent.plugin_process("Probe").pid, "the copy that this agent launched"
            served.append(answer["result"]["pid"])
            with Caller(agent, numbers):
                agent.until(r"^Probe .*noted: \d+")
                agent.end(number)
        orphans.append(agent)
    for agent in orphans:
        agent.joined()
    assert len(set(served)) == len(ends)
    handled = Counter(text for _, text in site.ledger() if text.isdecimal())
    assert len(handled) >= len(ends), "commands were handled under each agent"
    assert handled.most_common(1)[0][1] == 1, f"handled twice: {handled.most_common(3)}"


def test_an_orphan_whose_handler_never_ends_gives_way_to_the_next_copy(site: Site) -> None:
    with leaving_orphans(site, "nats") as agent:
        agent.control.send("Probe", "echo")
        with pytest.raises(KepmError):
            agent.control.send("Probe", "hang/stubborn", timeout=0.5)
        orphan = agent.plugin_process("Probe")
        agent.end(signal.SIGKILL)
    with agent_process(site.root, "--broker", "nats", measured=False) as successor:
        assert successor.control.send("Probe", "echo", timeout=10)["result"]["pid"] != orphan.pid
        orphan.wait(PATIENCE)
    agent.joined()


def test_an_orphan_that_is_stopped_is_woken_and_gives_way_to_the_next_copy(site: Site) -> None:
    with leaving_orphans(site, "mosquitto") as agent:
        older = psutil.Process(echo(agent, 1))
        older.suspend()
        with pytest.raises(KepmError):
            echo(agent, 2, timeout=0.3)  # it lies in the socket of the stopped process
        agent.end(signal.SIGKILL)
    with agent_process(site.root, "--broker", "mosquitto", measured=False) as successor:
        newer = echo(successor, 3)
        older.wait(PATIENCE)
        successor.until(r"^Probe .*standby\.woken")
        assert newer == successor.plugin_process("Probe").pid
    agent.joined()
    assert handled(site) == {1: [older.pid], 3: [newer]} | ({2: [older.pid]} if 2 in handled(site) else {})


@pytest.mark.parametrize("state", ["healthy", "stopped"])
def test_a_copy_whose_agent_lives_keeps_its_place(site: Site, tmp_path: Path, state: str) -> None:
    other = make_site(tmp_path / "other", work=site.work)
    with agent_process(site.root, "--broker", "mosquitto") as first:
        older = psutil.Process(echo(first, 1))
        if state == "stopped":
            older.suspend()
        with agent_process(other.root, "--broker", "mosquitto") as second:
            second.until(r"^Probe .*state\.changed.*standby")
            if state == "stopped":
                threading.Event().wait(1.5)  # Nothing happens: an orphan would have been woken by now.
                assert older.status() == psutil.STATUS_STOPPED
                older.resume()
            assert echo(first, 2) == older.pid
            first.control.stop("Probe")
            newer = echo(second, 3)
            assert newer == second.plugin_process("Probe").pid
    assert handled(site) == {1: [older.pid], 2: [older.pid], 3: [newer]}


@pytest.mark.parametrize("order", ["by hand first", "by hand second"])
def test_a_copy_that_was_started_by_hand_neither_serves_nor_stands_in_the_way(site: Site, order: str) -> None:
    with agent_process(site.root, "--broker", "mosquitto") as agent:
        if order == "by hand first":
            agent.control.stop("Probe")
        base = agent.control.describe()["api_base"]
        command = [sys.executable, probe_plugin.__file__, "--work", str(site.work), "--keeper-api-base", base]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as by_hand:
            try:
                assert by_hand.stderr is not None
                assert "plugin.starting" in by_hand.stderr.readline()
                if order == "by hand first":
                    agent.control.start("Probe")
                for number in range(3):
                    assert echo(agent, number) == agent.plugin_process("Probe").pid
                assert by_hand.poll() is None
            finally:
                by_hand.terminate()
                by_hand.communicate(timeout=PATIENCE)
    assert by_hand.pid not in {pid for pids in handled(site).values() for pid in pids}


def test_another_certificate_and_another_port_are_found(site: Site, tmp_path: Path) -> None:
    """As after a restart of the agent, with the bundle exported again as the agent tells to."""
    bundle = tmp_path / "bundle.pem"
    with agent_process(site.root, "--broker", "mosquitto", env={"PROBE_CA_BUNDLE": str(bundle)}) as agent:

        def export() -> None:
            bundle.write_text(ssl.get_server_certificate(agent.control.describe()["broker"]))

        export()
        before = echo(agent, 1)
        agent.control.fault(NewCertificate())
        export()
        agent.control.fault(MovePort())
        agent.until(r"^Probe .*link\.address_changed")
        assert echo(agent, 2) == before
        agent.until(r"^Probe .*link\.certificate_changed")
    assert len(handled(site)) == 2
