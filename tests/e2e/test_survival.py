"""What a plugin survives: its broker, its agent, a pause of the machine, a manifest that lacks something."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import Self

import pytest

from kepm_plugin.errors import KepmError
from tests.e2e.agent_process import AgentProcess, agent_process
from tests.e2e.conftest import Site


class Caller:
    """Sends numbered commands one after the other, whatever becomes of them, until the end of the context."""

    def __init__(self, agent: AgentProcess, numbers: "count[int]") -> None:
        self._control, self._numbers = agent.control, numbers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="caller")
        self.answered: list[int] = []

    def _send_all(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            try:
                answer = self._control.send("Probe", "echo", {"number": number}, timeout=1)
            except KepmError:
                continue
            self.answered.append(answer["result"]["number"])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)


def test_ten_kills_of_the_broker_while_commands_are_sent(site: Site, engine: str) -> None:
    numbers = count(1)
    with agent_process(site.root, "--broker", engine) as agent:
        agent.control.send("Probe", "echo")
        before = agent.plugin_process("Probe").pid
        with Caller(agent, numbers) as caller:
            for _ in range(10):
                mark = agent.mark()
                agent.control.kill_engine()
                agent.until(r"accepts again", after=mark)
                assert agent.control.send("Probe", "echo", {}, timeout=3)["ok"]
        assert agent.plugin_process("Probe").pid == before, "the plugin was not restarted"
    assert caller.answered
    handled = {int(text) for _, text in site.ledger() if text.isdecimal()}
    assert set(caller.answered) <= handled


def test_five_restarts_of_the_agent_leave_one_copy_that_serves(site: Site, engine: str) -> None:
    numbers = count(1)
    ends = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    served: list[int] = []
    orphans: list[AgentProcess] = []
    for number in ends:
        with leaving_orphans(site, engine) as agent:
            answer = agent.control.send("Probe", "echo", {}, timeout=5)
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


@contextmanager
def leaving_orphans(site: Site, engine: str) -> Generator[AgentProcess]:
    """An agent that the test ends itself; its plugins may outlive it."""
    agent = AgentProcess(site.root, "--broker", engine, "--leave-orphans", measured=False)
    try:
        yield agent.ready()
    finally:
        agent.end(signal.SIGKILL)


def test_an_orphan_whose_handler_never_ends_gives_way_to_the_next_copy(site: Site) -> None:
    with leaving_orphans(site, "nats") as agent:
        agent.control.send("Probe", "echo")
        with pytest.raises(KepmError):
            agent.control.send("Probe", "hang/stubborn", timeout=0.5)
        orphan = agent.plugin_process("Probe")
        agent.end(signal.SIGKILL)
    with agent_process(site.root, "--broker", "nats", measured=False) as successor:
        assert successor.control.send("Probe", "echo", timeout=10)["result"]["pid"] != orphan.pid
        orphan.wait(5)
    agent.joined()


def test_a_pause_longer_than_the_link_budget_is_no_reason_to_exit(site: Site, engine: str) -> None:
    with agent_process(site.root, "--broker", engine, env={"PROBE_LINK_BUDGET": "1.5"}) as agent:
        agent.control.send("Probe", "echo")
        process = agent.plugin_process("Probe")
        process.send_signal(signal.SIGSTOP)
        agent.send_signal(signal.SIGSTOP)
        threading.Event().wait(3.0)  # The pause is what is tested: twice the budget.
        agent.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
        assert agent.control.send("Probe", "echo", {}, timeout=3)["result"]["pid"] == process.pid


def test_a_deployed_manifest_without_the_echo_leaves_the_link_unproven_and_serving(site: Site, engine: str) -> None:
    path = site.root / "Plugins" / "Probe.json"
    manifest = json.loads(path.read_bytes())
    for topics in manifest["metadata"]["mqttTopics"].values():
        topics.remove("Probe/Link")
    path.write_text(json.dumps(manifest))
    with agent_process(site.root, "--broker", engine) as agent:
        agent.until(r"^Probe .*link\.unproven")
        answer = agent.control.send("Probe", "echo")
        assert answer["result"]["pid"] == agent.plugin_process("Probe").pid
        assert len(agent.lines(r"^Probe .*Warning +link\.unproven")) == 1


@pytest.mark.parametrize(
    ("broker", "options", "version"),
    [("mosquitto", (), "5"), ("mosquitto", ("--no-mqtt5",), "3.1.1"), ("nats", (), "3.1.1")],
)
def test_overlapping_handlers_handle_a_message_once(
    site: Site, broker: str, options: tuple[str, ...], version: str
) -> None:
    with agent_process(site.root, "--broker", broker, *options) as agent:
        agent.control.send("Probe", "raise")
        agent.until(r"^Probe .*noted: any end")
        agent.until(rf"^Probe .*link\.up.*mqtt={version}\b")
        assert agent.control.send("Probe", "echo")["ok"]
    assert Counter(text for _, text in site.ledger()) == {"login one": 1, "any two": 1, "any end": 1}
