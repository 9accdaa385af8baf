"""Ways to wait between two attempts. None of them knows of other plugins; what differs is what it makes of its own."""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any, Final

from kepm_plugin.link import LinkOptions, Waits

After = Callable[[float, float], float]
"""Tells how long to wait after an attempt that took so long, where it has been tried for so long."""

Strategy = Callable[[Random], After]
"""Makes it for one plugin, and one outage."""


def options(**changed: Any) -> LinkOptions:
    """Return the link's options, but for some."""
    return LinkOptions(filters=tuple, **changed)


def without_jitter(given: LinkOptions) -> Strategy:
    """Wait as long as the link would at most."""
    return lambda _: Waits(given).after


def jittered(given: LinkOptions) -> Strategy:
    """Wait as the link does: any time up to that."""

    def made(random: Random) -> After:
        waits = Waits(given)
        return lambda took, away: random.uniform(0, waits.after(took, away))

    return made


def decorrelated(first: float, limit: float) -> Strategy:
    """Wait up to three times as long as the last time, whatever came of that, and never less than at first."""

    def made(random: Random) -> After:
        last = first

        def after(took: float, away: float) -> float:
            nonlocal last
            last = min(limit, random.uniform(first, last * 3))
            return last

        return after

    return made


def _heedless(**changed: Any) -> LinkOptions:
    """Return options by which it is all the same how long an attempt took, and the outage."""
    return options(share=0.0, slow=inf, **changed)


STRATEGIES: Final[dict[str, Strategy]] = {
    "no jitter, 0.8 s": without_jitter(_heedless()),
    "full jitter, 0.8 s": jittered(_heedless()),
    "decorrelated, 0.8 s": decorrelated(0.05, 0.8),
    "full jitter, 5 s": jittered(_heedless(max_delay=5.0)),
    "full jitter, 30 s": jittered(_heedless(max_delay=30.0)),
    "a tenth of the outage": jittered(options(slow=inf)),
    "longer when slow": jittered(options(share=0.0)),
    "both (the link's)": jittered(options()),
}
"""What is compared; the second is what the link did before."""
