"""Where in a transaction a kill comes: the agent holds a request, and the plugin is killed while it waits for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

from kepm_plugin.devagent.faults import ApiFault, ApiHangs, ApiLate
from tests.chaos.edits.weather import OF_PLUGIN, key_path

BEFORE: Final = (0, 2)
"""Transactions of a run before its kill: at least, and at most so many times those that are to be on average."""

SPREAD: Final = 0.06
"""Seconds within which a kill at a random moment comes after a transaction has begun."""


class Aim(Enum):
    """What the plugin is doing when it is killed."""

    WRITE = "a PUT that is not carried out"
    WRITTEN = "a PUT that was carried out"
    LATE = "a PUT that is carried out after the kill"
    READ = "a GET"
    RECOVERY = "the first PUT of a run"
    """Of what has to be finished or taken back, or of the first transaction where there is nothing of that."""
    ANY = "a random moment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One kill as it is planned."""

    aim: Aim
    after: int
    """Transactions of the run before it."""
    delay: float
    fault: ApiFault | None
    """What holds the plugin; None: the time alone says when."""


def plan(random: Random, average: float) -> Iterator[Intent]:
    """Plan kills without end: all aims in turn, in random order.

    Args:
        random: What decides.
        average: Transactions between two of them.
    """
    while True:
        for aim in random.sample(list(Aim), len(Aim)):
            after = 0 if aim is Aim.RECOVERY else random.randint(BEFORE[0], round(BEFORE[1] * average))
            yield Intent(aim=aim, after=after, delay=random.uniform(0, SPREAD), fault=_fault(aim, random))


def _fault(aim: Aim, random: Random) -> ApiFault | None:
    match aim:
        case Aim.WRITE:
            return ApiHangs(method="PUT", path=key_path(random))
        case Aim.WRITTEN:
            return ApiHangs(method="PUT", path=key_path(random), applied=True)
        case Aim.LATE:
            return ApiLate(method="PUT", path=key_path(random), delay=random.uniform(0.2, 2.0))
        case Aim.READ:
            return ApiHangs(method="GET", path=OF_PLUGIN)
        case Aim.RECOVERY:
            return ApiHangs(method="PUT", applied=random.random() < 0.5)
        case Aim.ANY:
            return None
