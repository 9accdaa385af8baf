"""What a plugin survives: its broker, its agent, a pause of the machine, a manifest that lacks something."""

import json
import signal
import threading
from collections import Counter
from itertools import count
from typing import Self

import pytest

from kepm_plugin.errors import KepmError
from tests.e2e.agent_process import PATIENCE, AgentProcess, agent_process
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
                assert agent.control.send("Probe", "echo", {}, timeout=PATIENCE)["ok"]
        assert agent.plugin_process("Probe").pid == before, "the plugin was not restarted"
    assert caller.answered
    handled = {int(text) for _, text in site.ledger() if text.isdecimal()}
    assert set(caller.answered) <= handled


def test_a_pause_longer_than_the_link_budget_is_no_reason_to_exit(site: Site, engine: str) -> None:
    with agent_process(site.root, "--broker", engine, env={"PROBE_LINK_BUDGET": "1.5"}) as agent:
        agent.control.send("Probe", "echo")
        process = agent.plugin_process("Probe")
        process.send_signal(signal.SIGSTOP)
        agent.send_signal(signal.SIGSTOP)
        threading.Event().wait(3.0)  # The pause is what is tested: twice the budget.
        agent.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGCONT)
        assert agent.control.send("Probe", "echo", {}, timeout=PATIENCE)["result"]["pid"] == process.pid


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
