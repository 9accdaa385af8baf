"""Ends the own process, by `kill -9`, in the phase that the black box orders. Lives in the victim."""

import os
import signal
import threading
import time
from random import Random

from tests.chaos.black_box import BlackBox, Moment, Phase, Slot

SPANS = {
    Phase.BEFORE_COMMIT: 0.0005,
    Phase.TO_ACKNOWLEDGEMENT: 0.0003,
    Phase.IN_HANDLER: 0.005,
    Phase.TO_DONE: 0.0003,
    Phase.ANSWER_UNSENT: 0.002,
}
"""Seconds that a phase takes about: a kill from another thread comes within."""

MOMENTS = {Phase.TO_ACKNOWLEDGEMENT: 2}
"""How many moments of a phase the instruments name, where it is not one."""


class Reaper:
    """Counts messages into phases and out of them, and dies where it is told.

    A kill from another thread may be late: what counts is what the black box says afterwards. A message is counted into
    a phase before it is counted out of the one before: at no moment is it nowhere.
    """

    def __init__(self, box: BlackBox) -> None:
        self._box, self._aim, self._left = box, box.aim, box[Slot.NTH]
        self._lock = threading.Lock()
        random = Random(box[Slot.SEED])  # noqa: S311  no secret
        self._moment = box.moment
        self._delay = random.random()
        self._moments = 0 if self._aim is None else random.randint(1, MOMENTS.get(self._aim, 1))

    def enter(self, phase: Phase, count: int = 1) -> None:
        """Count messages into a phase; die, if it is aimed at and its turn has come."""
        self.add(phase, count)
        self.reached(phase)

    def add(self, phase: Phase, count: int = 1) -> None:
        """Count messages into a phase."""
        with self._lock:
            self._box.add(phase, count)

    def reached(self, phase: Phase) -> None:
        """Die, if the phase is aimed at and its turn has come."""
        with self._lock:
            if phase is not self._aim:
                return
            self._left -= 1
            if self._left:
                return
        if self._moment is Moment.ENTERED:
            die()
        elif self._moment is Moment.ANY:
            threading.Thread(target=self._die_later, args=(SPANS[phase],), daemon=True).start()

    def moment(self, phase: Phase) -> None:
        """Die here, if the phase is aimed at and this moment was chosen."""
        if phase is self._aim and self._left <= 0 and self._moment is Moment.NAMED:
            self._moments -= 1
            if not self._moments:
                die()

    def leave(self, phase: Phase, count: int = 1) -> None:
        """Count messages out of a phase."""
        with self._lock:
            self._box.add(phase, -count)

    def count(self, phase: Phase) -> int:
        """Return how many messages are in a phase."""
        return self._box.count(phase)

    def acknowledged(self, count: int) -> None:
        """Count acknowledgements that were given to the socket."""
        self._box[Slot.ACKNOWLEDGED] += count

    def up(self) -> None:
        """Note a session."""
        self._box[Slot.UP] += 1

    def _die_later(self, span: float) -> None:
        time.sleep(span * self._delay)
        die()


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
