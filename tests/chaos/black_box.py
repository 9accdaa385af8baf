"""The black box of a plugin's process: what it is doing, in a file that `kill -9` leaves as it was.

The process writes, the harness reads once it is dead. The other way round the harness leaves an order in it: which run
this is, and in which phase it is to end.
"""

import mmap
from enum import Enum, auto
from pathlib import Path

from tests.chaos.shared_numbers import Numbers


class Phase(Enum):
    """What a process can be doing with a message when it is killed."""

    BEFORE_COMMIT = "before commit"
    """Read from the socket; the commit to the journal has not returned."""
    TO_ACKNOWLEDGEMENT = "commit to acknowledgement"
    """Until the acknowledgement was given to the socket."""
    IN_HANDLER = "in the handler"
    TO_DONE = "handler to done"
    """Without a journal: until the acknowledgement was given to the socket."""
    ANSWER_UNSENT = "answer unsent"
    """Until the broker's PUBACK was seen."""
    ELSEWHERE = "elsewhere"
    """Nothing of the above: starting, connecting, idle."""


class Moment(Enum):
    """When, in the phase that it is aimed at, a kill comes."""

    ENTERED = "as it is entered"
    NAMED = "at a later moment that the instruments name"
    ANY = "at any instruction, from another thread"


AIMED = (Phase.BEFORE_COMMIT, Phase.TO_ACKNOWLEDGEMENT, Phase.IN_HANDLER, Phase.TO_DONE, Phase.ANSWER_UNSENT)
"""Phases that a kill can be aimed at."""

PRECEDENCE = (Phase.BEFORE_COMMIT, Phase.TO_ACKNOWLEDGEMENT, Phase.TO_DONE, Phase.ANSWER_UNSENT, Phase.IN_HANDLER)
"""Which phase a kill is counted for where messages are in several: the briefest."""


class Slot(Enum):
    """Numbers of the box that are no phase."""

    RUN = auto()
    AIM = auto()
    """Number of a phase from 1 on, 0 for none."""
    NTH = auto()
    MOMENT = auto()
    """Number of a moment from 0 on."""
    SEED = auto()
    PID = auto()
    UP = auto()
    """Sessions of this run."""
    ACKNOWLEDGED = auto()
    """Acknowledgements that were given to the socket."""


_PHASES = {phase: number for number, phase in enumerate(PRECEDENCE)}
_SLOTS = {slot: len(_PHASES) + number for number, slot in enumerate(Slot)}
_MOMENTS = tuple(Moment)
_SIZE = mmap.PAGESIZE


class BlackBox(Numbers):
    """The numbers of a run: counts by `Phase`, the others by `Slot`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SIZE)

    def __getitem__(self, slot: Slot) -> int:
        return self._numbers[_SLOTS[slot]]

    def __setitem__(self, slot: Slot, value: int) -> None:
        self._numbers[_SLOTS[slot]] = value

    def count(self, phase: Phase) -> int:
        """Return how many messages are in a phase."""
        return self._numbers[_PHASES[phase]]

    def add(self, phase: Phase, count: int) -> None:
        """Count messages into a phase, or out of it. Not for several threads at a time."""
        self._numbers[_PHASES[phase]] += count

    def order(
        self, run: int, seed: int = 0, aim: Phase | None = None, nth: int = 0, moment: Moment = Moment.ENTERED
    ) -> None:
        """Prepare for a run; with `aim` it is to end in a phase that is entered for the nth time."""
        self._numbers[:] = memoryview(bytes(_SIZE)).cast("q")
        self[Slot.RUN], self[Slot.SEED], self[Slot.NTH] = run, seed, nth
        self[Slot.MOMENT] = _MOMENTS.index(moment)
        self[Slot.AIM] = 0 if aim is None else AIMED.index(aim) + 1

    @property
    def aim(self) -> Phase | None:
        """The phase that this run is to end in."""
        return AIMED[self[Slot.AIM] - 1] if self[Slot.AIM] else None

    @property
    def moment(self) -> Moment:
        """When in that phase."""
        return _MOMENTS[self[Slot.MOMENT]]

    def counts(self) -> dict[Phase, int]:
        """Return how many messages are in each phase."""
        return {phase: self.count(phase) for phase in _PHASES}

    def phase(self) -> Phase:
        """Return the phase that a kill at this moment is counted for: the aimed one where there is something in it."""
        if self.aim is not None and self.count(self.aim):
            return self.aim
        return next((phase for phase in PRECEDENCE if self.count(phase)), Phase.ELSEWHERE)
