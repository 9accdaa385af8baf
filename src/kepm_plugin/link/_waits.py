"""How long to wait between two attempts. Pure: times come in, upper bounds go out; the wait itself is random below.

An endpoint may have hundreds of plugins, and all lose their broker at one moment. What of this is good for all of them
was found by a model (docs/fleet.md): that waits are random matters less than that an attempt which has taken long is
not followed by the next one at once. It took long as there were too many of them, and what it had the broker do was in
vain; if all go on like that, none is ever served.
"""

from collections.abc import Iterator
from itertools import chain

from ._options import LinkOptions


class Waits:
    """The waits of one outage."""

    def __init__(self, options: LinkOptions, *, at_once: bool = False) -> None:
        """Begin; `at_once` makes the first wait none."""
        self._options = options
        self._quick = delays(options.first_delay, options.max_delay)
        self._slow = delays(options.slow_first_delay, options.slow_max_delay)
        if at_once:
            self._quick = chain((0.0,), self._quick)

    def after(self, took: float, away: float) -> float:
        """Return the upper bound of the wait after an attempt that led to nothing.

        Args:
            took: Seconds of that attempt.
            away: Seconds for which it has been tried.
        """
        options = self._options
        bound = max(next(self._quick), min(away * options.share, options.longest_delay))
        return bound if took < options.slow else max(bound, next(self._slow))


def delays(first: float, limit: float) -> Iterator[float]:
    """Upper bounds of the waits before each attempt: doubling from `first`, never above `limit`."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, limit)
