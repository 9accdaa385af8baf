"""The rig: a real local agent, the chaos plugin and the producer, each a process of its own, and what they leave."""

import json
import shlex
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kepm_plugin.manifest import manifest_of, to_json
from tests.chaos.black_box import BlackBox
from tests.chaos.chaos_plugin import Chaos
from tests.chaos.ledger import Handled, Produced, read_handled, read_produced
from tests.chaos.messages import number_in
from tests.e2e.agent_process import AgentProcess, agent_process

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that the producer may take until the broker has everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is put together: broker, its model, and how the plugin is declared."""

    name: str
    broker: Literal["mosquitto", "nats"] = "mosquitto"
    embedded: bool = False
    journal: bool = True
    mutant: str | None = None
    producing: tuple[str, ...] = ()
    """Further arguments of the producer."""
    options: tuple[str, ...] = ()
    """Further arguments of the local agent."""

    @property
    def durable(self) -> bool:
        """Whether the broker keeps what is sent while the plugin is down."""
        return not self.embedded

    @property
    def producer_arguments(self) -> tuple[str, ...]:
        """Arguments of the producer: it is quick where only what comes while the plugin is up can be handled."""
        return (*(() if self.durable else ("--pace", "0.01")), *self.producing)

    @property
    def agent_arguments(self) -> tuple[str, ...]:
        """Arguments of the local agent: who was killed is started by the harness, at once."""
        model = ("--broker-model", "embedded" if self.embedded else "classic")
        return ("--broker", self.broker, *model, "--unlimited-queue", "--monitor-interval", "3600", *self.options)

    @property
    def victim_arguments(self) -> tuple[str, ...]:
        """Arguments of the chaos plugin."""
        mutant = () if self.mutant is None else ("--mutant", self.mutant)
        return (*(() if self.journal else ("--no-journal",)), *mutant)


@dataclass(slots=True)
class Gate:
    """What the gate knows of the chaos plugin."""

    sent: int = 0
    dropped: int = 0
    total: int = 0
    """Acknowledgements that it has read."""
    acknowledged: Counter[str] = field(default_factory=Counter[str])
    """By the SHA-256 of their payloads."""


class Orders:
    """The harness's end of the producer's socket."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(str(path))
        self._listener.listen()
        self._producer: socket.socket | None = None

    def publish(self, count: int) -> None:
        """Let the producer publish so many more."""
        self._connected().sendall(json.dumps({"publish": count}).encode() + b"\n")

    def settle(self, timeout: float = PATIENCE) -> int:
        """Return how many were published, when the broker has acknowledged them all."""
        producer = self._connected()
        producer.settimeout(timeout)
        producer.sendall(b'{"settle": true}\n')
        sent: int = json.loads(producer.recv(4096))["sent"]
        return sent

    def _connected(self) -> socket.socket:
        if self._producer is None:
            self._producer, _ = self._listener.accept()
        return self._producer

    def close(self) -> None:
        """Let the producer go."""
        self._listener.close()
        if self._producer is not None:
            self._producer.close()


class Rig:
    """What a test or a harness drives."""

    def __init__(self, scenario: Scenario, seed: str, work: Path, agent: AgentProcess, orders: Orders) -> None:
        self.scenario, self.seed, self.work = scenario, seed, work
        self.agent, self.orders = agent, orders
        self.box = BlackBox(work / "box")

    def handled(self) -> Handled:
        """Read the plugin's ledger."""
        return read_handled(self.work / "handled")

    def produced(self) -> Produced:
        """Read the producer's ledger."""
        return read_produced(self.work / "produced")

    def gate(self) -> Gate:
        """Ask the agent what the plugin was sent and has acknowledged."""
        gate = Gate()
        while True:
            page: dict[str, Any] = self.agent.control.deliveries(Chaos.id, sum(gate.acknowledged.values()))
            gate.sent, gate.dropped, gate.total = page["sent"], page["dropped"], page["total"]
            gate.acknowledged.update(digest for _, _, digest in page["acknowledged"])
            if not page["acknowledged"]:
                return gate

    def journalled(self) -> int:
        """Return how many messages the plugin's journal holds, whether or not it runs."""
        return int(self._query("SELECT count(*) FROM journal")[0][0])

    def given_up(self) -> Counter[int]:
        """Return how often each message became the dead letter of one that ends its process, by its number."""
        letters = self._query("SELECT payload FROM dead WHERE reason = 'crashed'")
        return Counter(number_in(payload) for (payload,) in letters)

    def _query(self, query: str) -> list[tuple[Any, ...]]:
        path = self.work / "data" / Chaos.id / "plugin.db"
        if not path.exists():
            return [(0,)] if "count" in query else []  # a plugin without a journal has no file
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()


@contextmanager
def rig(
    scenario: Scenario, seed: str, *, env: dict[str, str] | None = None, keep: Path | None = None
) -> Generator[Rig]:
    """Make a folder and start the agent in it, with the producer; the plugin is the caller's to start.

    The folder goes at the end; with `keep` a copy stays there, and the agent's output with it.
    """
    with tempfile.TemporaryDirectory(prefix="kepm-chaos-") as name:  # short, as the path of a socket has to be
        root, work = Path(name) / "root", Path(name) / "work"
        (root / "Plugins").mkdir(parents=True)
        work.mkdir()
        _register_chaos(root, work, scenario)
        _register_producer(root, work, scenario, seed)
        with closing(Orders(work / "orders")) as orders:
            environment = {"PYTHONPATH": str(REPOSITORY), **(env or {})}
            with agent_process(root, *scenario.agent_arguments, env=environment, measured=False) as agent:
                made = Rig(scenario, seed, work, agent, orders)
                try:
                    with made.box:
                        yield made
                finally:
                    if keep is not None:
                        (work / "agent.log").write_text("\n".join(agent.lines("")))
                        shutil.copytree(work, keep / scenario.name, ignore=shutil.ignore_patterns("orders", "lock"))


def _register_chaos(root: Path, work: Path, scenario: Scenario) -> None:
    command = ["-m", "tests.chaos.victim", "--work", str(work), *scenario.victim_arguments, "--api-base"]
    manifest = manifest_of(
        Chaos.declarations(), executable=sys.executable, arguments=f"{shlex.join(command)} {{KeeperApiBaseUrl}}"
    )
    content = json.loads(to_json(manifest)) | {"autoStart": False}
    (root / "Plugins" / "Chaos.json").write_text(json.dumps(content))


def _register_producer(root: Path, work: Path, scenario: Scenario, seed: str) -> None:
    command = ["-m", "tests.chaos.producer", "--root", str(root), "--work", str(work), "--seed", seed]
    content = {
        "id": "Producer",
        "name": "Producer",
        "version": "1.0.0",
        "pluginType": "Executable",
        "executablePath": sys.executable,
        "arguments": shlex.join([*command, *scenario.producer_arguments]),
        "supportedPlatforms": ["Linux", "macOS"],
        "autoRestart": False,
        "Subscription": {"Topic": "Producer", "Qos": 1, "CleanSession": False},
        "metadata": {
            "mqttTopics": {
                "publish": ["Chaos/Events/#", "Chaos/Commands/+"],
                "subscribe": ["Chaos/Responses/#"],
            }
        },
    }
    (root / "Plugins" / "Producer.json").write_text(json.dumps(content))
