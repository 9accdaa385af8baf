"""Faults of the agent's API that come and go, by a plan that is made of a seed alone."""

import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from kepm_plugin.contract import REVERT, SETTINGS_PATH, STATUS
from kepm_plugin.devagent.control_client import ControlClient
from kepm_plugin.devagent.faults import ApiCut, ApiFault, ApiHangs, ApiLate, ApiRefused, ApiSlow
from tests.chaos.edits.editing_plugin import Editing
from tests.chaos.edits.notes import EVERY_OTHER, STAMPS
from tests.chaos.edits.orders import Pace

GAP: Final = (1, 8)
"""Transactions from one fault to the next, at least and at most."""

WITHIN: Final = 0.2
"""Seconds within which it comes then."""

GIVEN_UP: Final = 5.0
"""Seconds after which the plugin's client gives an answer up."""

OF_PLUGIN: Final = f"{SETTINGS_PATH}/{Editing.id}"
KEYS: Final = (*STAMPS, EVERY_OTHER, "low", "high")


def key_path(random: Random) -> str:
    """Return the path of one key."""
    return f"{OF_PLUGIN}/{random.choice(KEYS)}"


def _put(kind: type[ApiFault], **values: Any) -> Callable[[Random], ApiFault]:
    return lambda random: kind(method="PUT", path=key_path(random), **values)


def _get(kind: type[ApiFault], **values: Any) -> Callable[[Random], ApiFault]:
    return lambda _: kind(method="GET", path=OF_PLUGIN, **values)


def _revert(kind: type[ApiFault], **values: Any) -> Callable[[Random], ApiFault]:
    return lambda _: kind(method="POST", path=f"{OF_PLUGIN}/{REVERT}", **values)


def _late(random: Random) -> ApiFault:
    return ApiLate(method="PUT", path=key_path(random), delay=GIVEN_UP + random.uniform(0.1, 1.5))


def _no_status(_: Random) -> ApiFault:
    return ApiRefused(method="GET", path=f"{OF_PLUGIN}/{STATUS}", status=404, seconds=2.0)


PLAN: Final[dict[str, tuple[int, Callable[[Random], ApiFault]]]] = {
    "PUT answered 403": (8, _put(ApiRefused, seconds=0.5)),
    "all PUTs answered 403": (3, lambda _: ApiRefused(method="PUT", seconds=0.5)),
    "PUT answered 500": (8, _put(ApiRefused, status=500)),
    "PUT answered 503, carried out": (8, _put(ApiRefused, status=503, applied=True)),
    "PUT cut": (8, _put(ApiCut)),
    "PUT cut, carried out": (10, _put(ApiCut, applied=True)),
    "PUT hangs": (2, _put(ApiHangs)),
    "PUT hangs, carried out": (2, _put(ApiHangs, applied=True)),
    "PUT carried out after it was given up": (4, _late),
    "GET answered 500": (6, _get(ApiRefused, status=500, count=2, seconds=0.5)),
    "GET cut": (6, _get(ApiCut, count=1, seconds=0.5)),
    "GET hangs": (1, _get(ApiHangs)),
    "status answered 404": (4, _no_status),
    "revert cut, carried out": (3, _revert(ApiCut, applied=True)),
    "revert answered 500": (3, _revert(ApiRefused, status=500)),
    "slow": (8, lambda random: ApiSlow(delay=random.uniform(0.02, 0.2), seconds=0.6)),
}
"""Each kind of fault: how often it comes compared with others, and how it is made."""


BRIEF: Final = tuple(name for name in PLAN if "hangs" not in name and "given up" not in name)
"""The faults for which nobody has to wait until something is given up."""


class Weather:
    """Sets faults of some kinds, one after the other."""

    def __init__(self, control: ControlClient, random: Random, pace: Pace, names: Sequence[str]) -> None:
        self._control, self._random, self._pace = control, random, pace
        self.set: dict[str, int] = dict.fromkeys(names, 0)
        """How often each came."""

    def blow_until(self, stopped: threading.Event) -> None:
        """Set faults at random moments."""
        weights = [PLAN[name][0] for name in self.set]
        while not self._pace(stopped, self._random.randint(*GAP)):
            stopped.wait(self._random.uniform(0, WITHIN))
            (name,) = self._random.choices(list(self.set), weights)
            self._control.fault(PLAN[name][1](self._random))
            self.set[name] += 1
