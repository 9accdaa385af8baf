"""The stage of a scene: a real local agent with the scenes' plugin and the source, and what the board says of them."""

import hashlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil

from tests.chaos.rig import REPOSITORY
from tests.chaos.scenes.board import CAPACITY, Board, Column, Slot
from tests.chaos.scenes.messages import KINDS, invent, is_answered, is_command
from tests.chaos.scenes.scene_plugin import Scene
from tests.chaos.scenes.setting import Setting, register
from tests.e2e.agent_process import AgentProcess

LOOK: Final = 0.02
"""Seconds between two looks at the board, which tells nobody that it has changed."""

STEADY: Final = 40
"""Messages a second of a steady flow: what a broker holds in half a minute is below mosquitto's 1,000."""

PATIENCE: Final = 45.0


class Late(Exception):
    """What should have happened has not."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the source published on one order: the numbers from `first` to before `end`, all of one kind."""

    first: int
    end: int
    kind: str = "mixed"
    pause: int = 0
    padding: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return self.end - self.first

    def topic(self, number: int) -> str:
        """Return the topic of a message; a key is left open."""
        topics = KINDS[self.kind]
        return topics[number % len(topics)]


class Stage:
    """What a scene drives."""

    def __init__(self, setting: Setting, root: Path, work: Path, agent: AgentProcess, board: Board) -> None:
        self.setting, self.root, self.work, self.agent, self.board = setting, root, work, agent, board
        self._orders: list[Order] = []

    @property
    def process(self) -> psutil.Process:
        """The plugin's process."""
        return self.agent.plugin_process(Scene.id)

    # --- the source ---------------------------------------------------------------------------------------------------

    def order(
        self,
        kind: str = "mixed",
        *,
        rate: int = STEADY,
        count: int | None = None,
        pause: int = 0,
        padding: int = 0,
        qos: int = 1,
    ) -> Order:
        """Have the source publish; without a `count` until `halt`."""
        self.halt()
        board, first = self.board, self.board[Slot.LAST] + 1
        board[Slot.KIND], board[Slot.RATE] = list(KINDS).index(kind), rate
        board[Slot.PAUSE], board[Slot.PADDING], board[Slot.QOS] = pause, padding, qos
        end = CAPACITY + 1 if count is None else first + count
        assert end <= CAPACITY + 1, f"the board has no room for {count} messages after {first}"
        board[Slot.UNTIL] = end - 1
        self._orders.append(Order(first, end, kind, pause, padding))
        return self._orders[-1]

    def halt(self) -> None:
        """Have the source publish nothing more."""
        self.board[Slot.UNTIL] = 0
        threading.Event().wait(LOOK)  # It may be about to publish one that it was allowed before.

    def halted(self, order: Order) -> Order:
        """Have the source publish nothing more; return what it published of an order that had no end."""
        self.halt()
        return replace(order, end=self.board[Slot.LAST] + 1)

    def last(self) -> int:
        """Return the number of the last message that was published."""
        return self.board[Slot.LAST]

    # --- waiting ------------------------------------------------------------------------------------------------------

    def until(self, holds: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Return when something holds.

        Raises:
            Late: It does not, in time.
        """
        ends = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > ends:
                raise Late(f"{what}: not within {timeout:g} s")
            threading.Event().wait(LOOK)

    def recovery(self, since: int, from_number: int, timeout: float = PATIENCE) -> float:
        """Return after how many seconds a message was handled that was published after a moment; a flow is needed.

        Raises:
            Late: There was none in time.
        """
        handled: list[int] = []

        def fresh() -> bool:
            end = self.board[Slot.LAST] + 1
            published = self.board.column(Column.PUBLISHED, from_number, end)
            times = self.board.column(Column.HANDLED, from_number, end)
            handled[:] = [after for before, after in zip(published, times, strict=True) if after and before >= since]
            return bool(handled)

        self.until(fresh, "a message was handled again", timeout)
        return (min(handled) - since) / 1e9

    def settle(self, owed: Callable[[], set[int]], order: Order, *, timeout: float = 120.0) -> None:
        """Return when all that is owed of an order was handled and answered, or when nothing has moved for a while."""
        self.rest(lambda: not self.missing(order, owed()), timeout=timeout)

    def rest(self, enough: Callable[[], object], *, timeout: float = 120.0) -> None:
        """Return when nothing has moved for a while; at once where nothing moves and there was enough."""
        ends, moved, before = time.monotonic() + timeout, time.monotonic(), (-1, -1)
        while (now := time.monotonic()) < ends and now - moved < self.setting.quiet:
            counts = self.board[Slot.ACKNOWLEDGED], self.board[Slot.HANDLED]
            if counts != before:
                moved, before = now, counts
            elif enough():
                return
            threading.Event().wait(LOOK)

    # --- what became of an order --------------------------------------------------------------------------------------

    def parts(self, order: Order) -> Iterator[Order]:
        """Return an order in parts, where others came before its end: each of one kind."""
        ends = [after.first for after in self._orders[1:]] + [order.end]
        for part, end in zip(self._orders, ends, strict=True):
            first, end = max(part.first, order.first), min(end, part.end, order.end)
            if first < end:
                yield replace(part, first=first, end=end)

    def missing(self, order: Order, owed: set[int] | None = None) -> set[int]:
        """Return the messages that were not handled, or not answered, of those `owed`; by default of all."""
        handled = self.board.column(Column.COUNT, order.first, order.end)
        missing = {number for number, count in enumerate(handled, order.first) if not count}
        if self.setting.journal:
            for part in self.parts(order):
                answered = self.board.column(Column.ANSWERED, part.first, part.end)
                missing |= {
                    n for n, count in enumerate(answered, part.first) if not count and is_answered(part.topic(n))
                }
        return missing if owed is None else missing & owed

    def acknowledged(self, order: Order) -> set[int]:
        """Return what the broker has acknowledged of an order."""
        times = self.board.column(Column.ACKNOWLEDGED, order.first, order.end)
        return {number for number, when in enumerate(times, order.first) if when}

    def taken(self, order: Order, since: int = 0) -> set[int]:
        """Return what the plugin has acknowledged of an order, by the gate's record from a place on."""
        numbers = {
            hashlib.sha256(invent(part.kind, number, part.pause, part.padding)[1]).hexdigest(): number
            for part in self.parts(order)
            for number in range(part.first, part.end)
        }
        taken: set[int] = set()
        while rows := (page := self.deliveries(since))["acknowledged"]:
            taken |= {numbers[digest] for _, _, digest in rows if digest in numbers}
            since = page["first"] + len(rows)
        return taken

    def again(self, order: Order, *, commands: bool = False) -> int:
        """Return how many handlings of an order's messages were more than one, of events or of commands."""
        more = 0
        for part in self.parts(order):
            counts = self.board.column(Column.COUNT, part.first, part.end)
            more += sum(
                count - 1
                for number, count in enumerate(counts, part.first)
                if count > 1 and is_command(part.topic(number)) == commands
            )
        return more

    def deliveries(self, since: int = 0) -> dict[str, Any]:
        """Return a page of the gate's record."""
        return self.agent.control.deliveries(Scene.id, since)

    def states(self, since: int = 0) -> list[dict[str, Any]]:
        """Return what the plugin said on Status after a moment, oldest first."""
        path = self.work / "states"
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
        return [json.loads(text) for when, text in lines if int(when) >= since]

    def await_states(self, count: int) -> None:
        """Return when the plugin has said so many times more how it is."""
        before = len(self.states())
        self.until(lambda: len(self.states()) >= before + count, "the plugin says how it is")

    # --- the agent ----------------------------------------------------------------------------------------------------

    def kill_agent(self) -> int:
        """Kill the agent, and start another one on its root; return when that is ready."""
        self.agent.end(signal.SIGKILL)
        self.agent.joined()
        self.agent = _agent(self.setting, self.root)
        self.agent.ready()
        return time.monotonic_ns()


@contextmanager
def stage(setting: Setting) -> Generator[Stage]:
    """Make a folder and start the agent in it; a message was handled when this is entered.

    Raises:
        Late: None was.
    """
    with tempfile.TemporaryDirectory(prefix="kepm-scene-") as name:
        root, work = Path(name) / "root", Path(name) / "work"
        (root / "Plugins").mkdir(parents=True)
        work.mkdir()
        register(setting, root, work)
        with Board(work / "board") as board:
            made = Stage(setting, root, work, _agent(setting, root), board)
            try:
                made.agent.ready()
                # Not before: the embedded model keeps nothing for a plugin that has never been there.
                made.agent.until(rf"^{Scene.id} .*link\.up")
                first = made.order("mixed", count=4)
                made.until(lambda: not made.missing(first), "the first messages were handled")
                yield made
            finally:
                made.agent.send_signal(signal.SIGCONT)
                made.agent.end()
                made.agent.joined()


def _agent(setting: Setting, root: Path) -> AgentProcess:
    return AgentProcess(root, *setting.agent_arguments, env={"PYTHONPATH": str(REPOSITORY)}, measured=False)
