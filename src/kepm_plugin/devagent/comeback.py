"""When a plugin that ended by itself is launched again: soon at first, and ever more rarely while it keeps ending.

This is ours: what the agent does with a plugin that keeps ending is not documented. At the agent's own interval
(`real_intervals`) nothing is added to it.
"""

import math
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 30.0
"""Seconds between two launches at most, where checks are not rarer by themselves."""

LONG_ENOUGH: Final = 10.0
"""Seconds; who ran that long begins anew."""


@dataclass(slots=True)
class Comeback:
    """Counts checks in place of seconds: the 1st after an end, then the 2nd, the 4th, and so on, up to `LONGEST`."""

    interval: float
    _quick_ends: int = 0
    _checks_left: int = 0

    def ended(self, ran: float) -> float:
        """Note an end after `ran` seconds; return in how many seconds about the plugin is launched again."""
        self._quick_ends = 1 if ran >= LONG_ENOUGH else self._quick_ends + 1
        most = max(1, math.ceil(LONGEST / self.interval)) if self.interval > 0 else 1
        self._checks_left = min(2 ** min(self._quick_ends - 1, 30), most)
        return self._checks_left * self.interval

    def due(self) -> bool:
        """Tell, at a check, whether it is time."""
        self._checks_left -= 1
        return self._checks_left <= 0

    def reset(self) -> None:
        """Begin anew: somebody did something about it."""
        self._quick_ends = self._checks_left = 0
