"""What a campaign is made of: the agent, the plugin that edits its settings, and what the harness does to it."""

import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from kepm_plugin.errors import AgentError
from kepm_plugin.manifest import manifest_of, to_json
from tests.chaos.edits.aims import Intent
from tests.chaos.edits.editing_plugin import Editing, Values, snapshot_of
from tests.chaos.edits.evidence import Held, Kill
from tests.chaos.edits.foreign import Others
from tests.chaos.edits.notes import SECRET, Snapshot
from tests.chaos.edits.orders import LOOK, Orders, Slot
from tests.chaos.rig import REPOSITORY
from tests.e2e.agent_process import AgentProcess, agent_process

HOLDS: Final = 8.0
"""Seconds that the agent may take to hold an aimed request; then the kill comes without."""

COMES_UP: Final = 20.0
"""Seconds that a run may take to come up; then it is killed as it is."""

SETTLES: Final = 30.0
"""Seconds that the plugin may take, when nothing disturbs it any more, until it has what the agent has."""

ENDS: Final = 20.0
PAUSE: Final = 0.1
"""Seconds for which a handler looks, at most."""

WITNESS: Final = 0.02
"""Seconds between two looks at what the agent holds."""

DOWN: Final = 0.1
"""Seconds until the next command where the plugin could not answer."""

HASTE: Final = 8
"""Transactions from one edit by a handler to the next."""


@dataclass(slots=True)
class Campaign:
    """One run of the scene, and what it is made of."""

    work: Path
    agent: AgentProcess
    orders: Orders
    seed: str
    kills: list[Kill] = field(default_factory=list[Kill])
    held: list[Held] = field(default_factory=list[Held])
    ended_by_itself: list[str] = field(default_factory=list[str])
    asked: int = 0
    """Commands that were answered."""

    @property
    def amid(self) -> int:
        """How many kills came amid a transaction."""
        return sum(kill.amid for kill in self.kills)

    def random(self, what: str) -> Random:
        """Return a source of chance that is of its own for each part of the campaign."""
        return Random(f"{self.seed} {what}")  # noqa: S311  no secret

    # --- the plugin's process -----------------------------------------------------------------------------------------

    def start(self) -> tuple[int, int]:
        """Start the next run; return its process, and the place in the agent's output."""
        self.orders[Slot.RUN] += 1
        self.orders[Slot.OPEN] = 0
        mark = self.agent.mark()
        self.agent.control.start(Editing.id)
        return int(self.agent.until(rf"launched {Editing.id}: process (\d+)", after=mark)[1]), mark

    def up(self, pid: int, mark: int) -> bool:
        """Return when the run is up; False: it is not in time, or has ended by itself."""
        return self.until(lambda: self.orders[Slot.UP] == self.orders[Slot.RUN], COMES_UP, self.gone(pid, mark))

    def gone(self, pid: int, mark: int) -> Callable[[], bool]:
        """Return what tells whether a process has ended."""
        return lambda: self.agent.seen(_end(pid), after=mark, timeout=0) is not None

    def note_end(self, pid: int, mark: int) -> None:
        """Note that a process has ended which nobody had killed, and how."""
        self.ended_by_itself.append(self.agent.until(_end(pid), after=mark)[1])

    def until(self, holds: Callable[[], bool], timeout: float, unless: Callable[[], bool]) -> bool:
        """Return when something holds, False if it does not in time or if something else does."""
        ends = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > ends or unless():
                return False
            threading.Event().wait(LOOK)
        return True

    def kill(self, intent: Intent) -> None:
        """Start the plugin, let it edit, and kill it as intended."""
        control, early = self.agent.control, intent.after == 0
        armed = control.fault(intent.fault) if intent.fault is not None and early else None
        pid, mark = self.start()
        before = self.orders[Slot.NUMBER]
        gone = self.gone(pid, mark)
        if not early and self.up(pid, mark):
            self.until(lambda: self.orders[Slot.NUMBER] > before + intent.after, HOLDS, gone)
        if intent.fault is not None:
            armed = armed or control.fault(intent.fault)
            acted = rf"fault {armed} is over: \w+, acted 1 times"
            hit = self.until(lambda: self.agent.seen(acted, after=mark, timeout=0) is not None, HOLDS, gone)
            control.clear_faults(armed)
        else:
            last = self.orders[Slot.NUMBER]
            hit = self.until(lambda: self.orders[Slot.NUMBER] > last, HOLDS, gone)
            threading.Event().wait(intent.delay)  # The moment is what is tested.
        if gone():
            self.note_end(pid, mark)
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.agent.until(_end(pid), after=mark)
        self.kills.append(
            Kill(
                run=self.orders[Slot.RUN],
                aim=intent.aim.value,
                at=time.monotonic_ns(),
                hit=hit,
                amid=self.orders[Slot.OPEN] > 0,
            )
        )

    # --- what goes on all the time ------------------------------------------------------------------------------------

    def ask(self, command: str, pause: float) -> dict[str, int] | None:
        """Send a command, and return its result; None where the plugin could not answer."""
        try:
            answer = self.agent.control.send(Editing.id, command, {"pause": pause}, timeout=2.0)
        except AgentError:
            return None
        self.asked += 1
        result: dict[str, int] | None = answer.get("result") if answer["ok"] else None
        return result

    def look_until(self, number: int, stopped: threading.Event) -> None:
        """Have handlers look at the settings."""
        random = self.random(f"looker {number}")
        while not stopped.is_set():
            if self.ask("look", random.uniform(0, PAUSE)) is None:
                stopped.wait(DOWN)

    def haste_until(self, stopped: threading.Event) -> None:
        """Have handlers edit that have no time for it."""
        random = self.random("haste")
        while not self.orders.pace(stopped, HASTE):
            self.ask(random.choice(("hasty", "brisk")), 0.0)

    def witness_until(self, stopped: threading.Event) -> None:
        """Note what the agent holds, whenever that has changed."""
        while not stopped.wait(WITNESS):
            begun = time.monotonic_ns()
            values = self.agent.control.get_settings(Editing.id)
            if not self.held or values != self.held[-1].values:
                self.held.append(Held(begun=begun, ended=time.monotonic_ns(), values=values))

    # --- the end ------------------------------------------------------------------------------------------------------

    def settled(self, others: Others) -> tuple[Snapshot | None, Snapshot]:
        """Let everything come to rest; return what the plugin has in the end, and what the agent has."""
        self.orders[Slot.PAUSED] = 1
        self.until(lambda: self.orders[Slot.OPEN] == 0, SETTLES, lambda: False)
        others.write_bounds()
        ends, mine = time.monotonic() + SETTLES, None
        while True:
            theirs = snapshot_of(Values.parse(self.agent.control.get_settings(Editing.id)))
            answer = self.ask("look", 0.0)
            mine = Snapshot(**answer) if answer else mine
            if mine == theirs or time.monotonic() > ends:
                return mine, theirs
            threading.Event().wait(0.1)

    def leaks(self) -> list[str]:
        """Return where a secret value can be read that should not: the plugin's files, and what was printed."""
        files = [path for path in (self.work / "data").rglob("*") if path.is_file()]
        found = [str(path.relative_to(self.work)) for path in files if SECRET.encode() in path.read_bytes()]
        return found + self.agent.lines(SECRET)

    def intents(self) -> list[str]:
        """Return the files of the plugin that hold a transaction which is open still."""
        files = {path: path.read_text() for path in (self.work / "data").rglob("*.json")}
        return [str(path.relative_to(self.work)) for path, text in files.items() if json.loads(text).get("transaction")]


@contextmanager
def campaign(seed: str, keep: Path | None = None) -> Generator[Campaign]:
    """Make a folder and start the agent in it; with `keep` a copy of what the plugin left stays there."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kepm-edits-")))
        root, work = folder / "root", folder / "work"
        (root / "Plugins").mkdir(parents=True)
        work.mkdir()
        _register(root, work, seed)
        orders = stack.enter_context(Orders(work / "orders"))
        arguments = ("--broker", "mosquitto", "--monitor-interval", "3600")
        environment = {"PYTHONPATH": str(REPOSITORY)}
        agent = stack.enter_context(agent_process(root, *arguments, env=environment, measured=False))
        try:
            yield Campaign(work, agent, orders, seed)
        finally:
            if keep is not None:
                (work / "agent.log").write_text("\n".join(agent.lines("")))
                shutil.copytree(work, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("orders", "lock"))


def _register(root: Path, work: Path, seed: str) -> None:
    command = ["-m", "tests.chaos.edits.actor", "--work", str(work), "--seed", seed, "--api-base"]
    manifest = manifest_of(
        Editing.declarations(), executable=sys.executable, arguments=f"{shlex.join(command)} {{KeeperApiBaseUrl}}"
    )
    content = json.loads(to_json(manifest)) | {"autoStart": False, "token": f"{SECRET}0"}
    (root / "Plugins" / f"{Editing.id}.json").write_text(json.dumps(content))


def _end(pid: int) -> str:
    return rf"process {pid} ended with (\w+ \d+)"
