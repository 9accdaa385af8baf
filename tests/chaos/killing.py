"""Kills: their plan, made of a seed alone, and how they are carried out."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from tests.chaos.black_box import AIMED, PRECEDENCE, Moment, Phase, Slot
from tests.chaos.chaos_plugin import Chaos
from tests.chaos.rig import Rig

RANDOM = 4
"""Kills at random moments, between one aimed at each phase."""

STARTING = 0.2
"""Share of those that do not wait until the plugin is up."""

WITHIN = 0.5
"""Seconds within which those come."""

NUDGE = 20
"""Messages that are published when an aimed kill does not come,"""

NUDGES = 20
"""so often at most; then it comes from outside."""

NUDGE_AFTER = 0.5
"""Seconds without an aimed kill."""

NTH = {
    Phase.BEFORE_COMMIT: 3,
    Phase.TO_ACKNOWLEDGEMENT: 3,
    Phase.IN_HANDLER: 40,
    Phase.TO_DONE: 40,
    Phase.ANSWER_UNSENT: 4,
}
"""How often at most the phase is entered before the process ends in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One kill as it is planned: in a phase, or so many seconds after the start or after the session is up."""

    seed: int = 0
    aim: Phase | None = None
    nth: int = 1
    moment: Moment = Moment.ENTERED
    delay: float = 0.0
    starting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill as it came: what was in progress, by the black box."""

    number: int
    intent: Intent
    phase: Phase
    counts: dict[Phase, int]
    acknowledged: int
    """Acknowledgements that this run gave to the socket."""
    sessions: int
    missed: bool
    """The aim was not reached."""

    @property
    def in_progress(self) -> int:
        """Handlings that may happen once more: unacknowledged, running, or returned and not committed."""
        return sum(self.counts[phase] for phase in PRECEDENCE if phase is not Phase.ANSWER_UNSENT)


def plan(random: Random, kills: int, phases: tuple[Phase, ...] = AIMED) -> Iterator[Intent]:
    """Plan kills: in turns one in each phase, and some at random moments, in random order."""
    waiting: list[Phase | None] = []
    for number in range(kills):
        if not waiting:
            waiting = [*random.sample(phases, len(phases)), *[None] * RANDOM]
            if number:  # the first aimed ones come first, so that a short campaign has one in each phase
                random.shuffle(waiting)
        aim = waiting.pop(0)
        seed = random.getrandbits(32)
        if aim is not None:
            moment = random.choice(list(Moment))
            yield Intent(seed=seed, aim=aim, nth=random.randint(1, NTH[aim]), moment=moment)
        else:
            yield Intent(seed=seed, delay=random.uniform(0, WITHIN), starting=random.random() < STARTING)


class Killer:
    """Starts the chaos plugin and kills it, again and again."""

    def __init__(self, rig: Rig, messages: int, told: Callable[[Kill], object] = lambda _: None) -> None:
        self._rig, self._messages, self._told = rig, messages, told
        self.run = 0
        """Number of the last start."""
        self.kills: list[Kill] = []

    @contextmanager
    def in_peace(self) -> Generator[None]:
        """Run the plugin for the time of the block, and stop it in order."""
        mark = self._rig.agent.mark()
        pid = self.start()
        self.until_up(mark)
        yield
        self._rig.agent.control.stop(Chaos.id)
        self._await_end(pid, mark, "code 0")

    def begin(self) -> None:
        """Let the broker know the plugin: a run that is up, and killed before there is anything to do."""
        mark = self._rig.agent.mark()
        pid = self.start()
        self.until_up(mark)
        os.kill(pid, signal.SIGKILL)
        self._await_end(pid, mark)

    def start(self, intent: Intent | None = None) -> int:
        """Start the plugin, to end as intended if at all; return the number of its process."""
        self.run += 1
        if intent is None:
            self._rig.box.order(self.run)
        else:
            self._rig.box.order(self.run, intent.seed, intent.aim, intent.nth, intent.moment)
        mark = self._rig.agent.mark()
        self._rig.agent.control.start(Chaos.id)
        return int(self._rig.agent.until(rf"launched {Chaos.id}: process (\d+)", after=mark)[1])

    def until_up(self, after: int) -> None:
        """Return when the plugin has a session."""
        self._rig.agent.until(self._up(), after=after)

    def _up(self) -> str:
        return rf"^{Chaos.id} .*run {self.run} is up"

    def kill(self, intent: Intent) -> Kill:
        """Start the plugin, let the producer publish, and see the plugin killed."""
        mark = self._rig.agent.mark()
        pid = self.start(intent)
        if not self._rig.scenario.durable and not intent.starting:
            # What is sent before is nobody's; it may end before, too.
            self._rig.agent.until(rf"{self._up()}|{_end(pid)}", after=mark)
        self._rig.orders.publish(self._messages)
        missed = False
        if intent.aim is None:
            if not intent.starting:
                self.until_up(mark)
            threading.Event().wait(intent.delay)  # The moment is what is tested.
            os.kill(pid, signal.SIGKILL)
        elif not self._ends(pid, mark):
            missed = True
            os.kill(pid, signal.SIGKILL)
        self._await_end(pid, mark)
        box = self._rig.box
        kill = Kill(
            number=self.run,
            intent=intent,
            phase=box.phase(),
            counts=box.counts(),
            acknowledged=box[Slot.ACKNOWLEDGED],
            sessions=box[Slot.UP],
            missed=missed,
        )
        self.kills.append(kill)
        self._told(kill)
        return kill

    def _ends(self, pid: int, mark: int) -> bool:
        """Wait for the process to end by itself, and give it more to do while it does not."""
        for _ in range(NUDGES):
            if self._rig.agent.seen(_end(pid), after=mark, timeout=NUDGE_AFTER):
                return True
            self._rig.orders.publish(NUDGE)
        return False

    def _await_end(self, pid: int, mark: int, expected: str = "signal 9") -> None:
        how = self._rig.agent.until(_end(pid), after=mark)[1]
        assert how == expected, f"run {self.run} ended with {how}, not with {expected}"


def _end(pid: int) -> str:
    """Return what the agent's output says of a process that has ended."""
    return rf"process {pid} ended with (\w+ \d+)"
