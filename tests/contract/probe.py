"""A plugin that tries everything that the contract has a say in, against a local agent, and what came of each step.

The plugin runs in the test's process. Its connections are carried by a process that the agent launched, so that the
agent takes them for its plugin's.
"""

import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import anyio

from kepm_plugin import Handler, Message, Plugin, Settings, setting
from kepm_plugin.agent import open_agent
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.contract import Contract
from kepm_plugin.devagent import Crossing, Likeness
from kepm_plugin.errors import AgentError
from kepm_plugin.link import Deliver
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication
from kepm_plugin.runtime import Serving, Surroundings
from kepm_plugin.store import memory_store
from tests.contract.combinations import STEPS, Combination
from tests.devagent.conftest import Stage, staged

SETTINGS: Final[dict[str, Any]] = {"title": "as filed", "depth": 3, "ratio": 0.5, "careful": True}
WRITTEN: Final[dict[str, tuple[str, Any]]] = {
    "write text": ("title", "in force"),
    "write number": ("depth", 7),
    "write fraction": ("ratio", 2.25),
    "write boolean": ("careful", False),
}
ANSWER: Final = 1.0
"""Seconds for an answer that comes at once or never."""

_numbers = count(1)


class ProbeSettings(Settings):
    title: str = setting(default="")
    depth: int = setting(default=0)
    ratio: float = setting(default=0.0)
    careful: bool = setting(default=False)


class Probe(Plugin):
    """Tries what the contract has a say in."""

    id = "P"
    settings: ProbeSettings
    settings_interval = 600.0
    link_budget = 0.1


@Probe.command("double")
class Double(Handler[Probe]):
    """Doubles a number."""

    async def handle(self, message: Message[dict[str, int]]) -> int:
        return 2 * message.payload["n"]


@asynccontextmanager
async def agent_for_probes(folder: Path, broker: str) -> AsyncGenerator[Stage]:
    """Run a local agent that takes a probe of this process for its plugin `P`."""
    root = folder / "agent root"
    (root / "Plugins").mkdir(parents=True)
    async with staged(root, broker, publish=["P/Link"], subscribe=["P/Link"], settings=SETTINGS) as stage:
        yield stage


async def tried(stage: Stage, combination: Combination, contract: Contract) -> dict[str, str]:
    """Return what came of each step that could be tried: nothing where it worked, else what is said of it."""
    stage.agent.revert("P")
    stage.agent.role.like = Likeness.of(combination.like)
    try:
        return await _Trial(stage, contract).run()
    finally:
        stage.agent.role.like = Likeness()


class _Said(logging.Handler):
    """What the plugin logs, with its reason, wherever it ends up."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.getMessage()}: {vars(record).get('reason', '')}")

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


class _Trial:
    """One run of the probe."""

    def __init__(self, stage: Stage, contract: Contract) -> None:
        self._stage, self._contract = stage, contract
        self._said = _Said()
        self._since = stage.agent.traffic.total
        self._shown = len(stage.lines.seen)
        self._stop = anyio.Event()
        self._serving: Serving

    async def run(self) -> dict[str, str]:
        outcomes: dict[str, str] = {}
        pipe = LogPipe()
        api = f"https://127.0.0.1:{self._stage.api_port}"
        with logging_to(pipe, source="P", contract=self._contract, fallback=StringIO()) as logs, self._said:
            async with open_agent(api, contract=self._contract) as agent:
                self._serving = Serving(
                    Probe,
                    Surroundings(
                        agent=agent,
                        open_session=self._opener(),
                        open_store=memory_store,
                        pipe=pipe,
                        logs=logs,
                        contract=self._contract,
                        stop=self._stop,
                        try_lock=lambda: True,
                        orphaned=lambda: False,
                        start_budget=0.0,
                    ),
                )
                async with anyio.create_task_group() as tasks:
                    ended = anyio.Event()
                    outcomes["connect"] = await self._connected(tasks, ended)
                    if not outcomes["connect"]:
                        for step in STEPS[1:]:
                            outcomes[step] = await self._step(step)
                    self._stop.set()
                    await ended.wait()
        return outcomes

    def _opener(self) -> Any:
        choice = ProtocolChoice()
        client_id = self._contract.client_id_for("P", process=os.getpid(), random="c0ffee00")

        def opener(_host: str, _port: int, will: Publication | None, deliver: Deliver) -> Any:
            address = BrokerAddress(port=self._stage.mqtt_port)
            return open_session(address, SessionOptions(client_id=client_id, will=will), choice, deliver)

        return opener

    async def _connected(self, tasks: Any, ended: anyio.Event) -> str:
        """Run the probe; return when it serves, or why it does not."""
        said = ""

        async def serve() -> None:
            nonlocal said
            try:
                said = str((await self._serving.run()).error or "")
            finally:
                ended.set()
                scope.cancel()

        with anyio.fail_after(10), anyio.CancelScope() as scope:
            tasks.start_soon(serve, name="probe")
            await self._serving.uplink.serving.wait()
        return said

    async def _step(self, name: str) -> str:
        steps: dict[str, Callable[[], Awaitable[str]]] = {
            "read all": self._read_all,
            "subscribe primary": self._subscribed,
            "command": self._command,
            "read one": self._read_one,
            "log": self._log,
            "status": self._status,
        }
        try:
            return await (steps[name]() if name in steps else self._write(*WRITTEN[name]))
        except AgentError as exc:
            return str(exc)

    async def _read_all(self) -> str:
        found = self._serving.plugin.settings
        values = {name: getattr(found, name) for name in SETTINGS}
        return "" if values == SETTINGS else f"read {values}"

    async def _subscribed(self) -> str:
        filters = {one.topic for one in await self._crossings("SUBACK")}
        if self._contract.subscribe_primary_topic != ("P" in filters):
            return f"subscribed to {sorted(filters)}"
        return ""

    async def _crossings(self, kind: str) -> list[Crossing]:
        ledger = self._stage.agent.traffic
        await ledger.wait_for(lambda one: one.kind == kind, since=self._since)
        return [one for one in list(ledger)[-(ledger.total - self._since) :] if one.kind == kind]

    async def _command(self) -> str:
        try:
            answer = await self._stage.agent.send("P", "double", {"n": 21}, timeout=ANSWER)
        except AgentError:
            return next((text for text in self._said.texts if text.startswith("command.nameless")), "")
        contract = self._contract
        fits = (answer.get(contract.answer_ok_field), answer.get(contract.answer_result_field)) == (True, 42)
        return "" if fits else f"answered {answer}"

    async def _read_one(self) -> str:
        port = await self._serving.plugin.agent_setting("broker.port")
        return "" if port == str(self._stage.agent.broker[1]) else f"read {port!r}"

    async def _write(self, name: str, value: object) -> str:
        async with self._serving.plugin.edit_settings() as draft:
            setattr(draft, name, value)
        found = getattr(self._serving.plugin.settings, name)
        return "" if found == value and type(found) is type(value) else f"wrote {value!r}, read {found!r}"

    async def _log(self) -> str:
        """Log something; nobody tells a plugin that a record was dropped, but this agent shows it."""
        text = f"probe {next(_numbers)}"
        logging.getLogger("probe").warning(text, extra={"fits": True})
        with anyio.fail_after(5):
            while not any(text in line or "log record dropped" in line for line in self._lines()):
                await self._stage.lines.news()
        return next((line for line in self._lines() if "log record dropped" in line), "")

    def _lines(self) -> list[str]:
        return [line for line in self._stage.lines.seen[self._shown :] if line.startswith("P ")]

    async def _status(self) -> str:
        ours = [one for one in await self._crossings("PUBLISH") if one.topic == "P/Status"]
        reports = [json.loads(one.payload) for one in ours if one.direction == "from plugin"]
        word = self._contract.status_words[2]
        fits = any(report.get(self._contract.status_state_field) == word for report in reports)
        return "" if fits else f"reported {reports}"
