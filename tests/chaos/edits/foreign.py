"""Others who write: through the agent's control channel, key by key, as an operator's tool or a policy would."""

import threading
import time
from itertools import count
from random import Random
from typing import Final

from kepm_plugin.devagent.control_client import ControlClient
from kepm_plugin.settings import encode
from tests.chaos.edits.editing_plugin import MAX, Editing
from tests.chaos.edits.evidence import Written
from tests.chaos.edits.notes import EVERY_OTHER, FOREIGN, SECRET, STAMPS
from tests.chaos.edits.orders import Pace

QUIET: Final = (2, 12)
"""Transactions in which nothing is written, at least and at most: while others write, hardly any edit can succeed."""

BURST: Final = 4
"""What is done at most until it is quiet again,"""

GAP: Final = (0.02, 0.3)
"""with so many seconds in between."""

BETWEEN: Final = (0.0, 0.1)
"""Seconds between the two writes of a pair."""

REVERTS: Final = 0.05
PAIRS: Final = 0.3
"""Shares of what is done; the rest are single stamps."""


class Others:
    """Writes, and remembers it."""

    def __init__(self, control: ControlClient, random: Random, pace: Pace) -> None:
        self._control, self._random, self._pace = control, random, pace
        self._last = count(FOREIGN + 1)
        self.written: list[Written] = []

    def write_until(self, stopped: threading.Event) -> None:
        """Write at random moments."""
        random = self._random
        while not self._pace(stopped, random.randint(*QUIET)):
            for _ in range(random.randint(1, BURST)):
                stopped.wait(random.uniform(*GAP))
                self.write()

    def write(self) -> None:
        """Do one thing of those that others do."""
        share = self._random.random()
        if share < REVERTS:
            self.revert()
        elif share < REVERTS + PAIRS:
            self.write_bounds()
        else:
            self.write_stamp(self._random.choice((*STAMPS, EVERY_OTHER)))

    def write_stamp(self, key: str) -> None:
        """Write a value that nobody has written before."""
        stamp = next(self._last)
        text = encode([stamp, stamp]) if key == "trail" else str(stamp)
        self._put(key, stamp, f"{SECRET}{text}" if key == EVERY_OTHER else text)

    def write_bounds(self) -> None:
        """Write both bounds one after the other; in between they often break the rule."""
        low = self._random.randint(0, MAX)
        high = self._random.randint(low, MAX)
        pair = [("low", low), ("high", high)]
        self._random.shuffle(pair)
        for key, value in pair:
            self._put(key, value, value)
            threading.Event().wait(self._random.uniform(*BETWEEN))

    def revert(self) -> None:
        """Have the agent go back to the file."""
        begun = time.monotonic_ns()
        self._control.revert_settings(Editing.id)
        self.written.append(Written(key="", stamp=0, begun=begun, ended=time.monotonic_ns()))

    def _put(self, key: str, stamp: int, value: str | float | bool) -> None:
        begun = time.monotonic_ns()
        self._control.set_setting(Editing.id, key, value)
        self.written.append(Written(key=key, stamp=stamp, begun=begun, ended=time.monotonic_ns()))
