"""How long the machine was suspended, as far as its clocks tell.

The clock of timers and event loops stands still in a suspend on Linux and macOS; on Windows it goes on, and whoever
waits finds itself late. Elsewhere lateness is all there is: the wall clock may be set, and would tell of suspends that
never were.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

Clock = Callable[[], float]

NOTICED: Final = 1.0
"""Seconds that a suspend takes at least to be noticed; two clocks are never read at the same moment."""


def clock_that_goes_on(platform: str = sys.platform) -> Clock:
    """Return a clock that counts the time of a suspend, or where there is none the one that stops."""
    # Linux's CLOCK_MONOTONIC_RAW stops too; that of macOS is its continuous time.
    name = "CLOCK_MONOTONIC_RAW" if platform == "darwin" else "CLOCK_BOOTTIME"
    number: int | None = getattr(time, name, None)
    read: Callable[[int], float] | None = getattr(time, "clock_gettime", None)
    return time.monotonic if number is None or read is None else partial(read, number)


class Suspension:
    """Call it for the seconds that the machine has been suspended since this was made."""

    def __init__(self, stops: Clock = time.monotonic, goes_on: Clock | None = None) -> None:
        self._stops, self._goes_on = stops, goes_on or clock_that_goes_on()
        self._ahead = self._start = self._goes_on() - self._stops()

    def __call__(self) -> float:
        """Return the seconds."""
        ahead = self._goes_on() - self._stops()
        if ahead - self._ahead >= NOTICED:
            self._ahead = ahead
        return self._ahead - self._start
