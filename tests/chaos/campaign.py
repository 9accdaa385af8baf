"""A campaign: one scenario, its kills, the rest handled in peace, and the evidence."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.chaos.black_box import AIMED, Phase
from tests.chaos.evidence import Evidence, await_rest, gather
from tests.chaos.killing import Intent, Kill, Killer, plan
from tests.chaos.rig import Scenario, rig

WITHOUT_JOURNAL = (Phase.IN_HANDLER, Phase.TO_DONE, Phase.ANSWER_UNSENT)
"""Phases that there are without a journal."""


def intents(scenario: Scenario, seed: str, kills: int) -> list[Intent]:
    """Return the kills of a scenario: of its name, the seed and their count alone."""
    random = Random(f"{seed} {scenario.name}")  # noqa: S311  no secret
    return list(plan(random, kills, AIMED if scenario.journal else WITHOUT_JOURNAL))


def campaign(
    scenario: Scenario,
    seed: str,
    planned: list[Intent],
    *,
    messages: int = 100,
    quiet: float = 10.0,
    timeout: float = 120.0,
    keep: Path | None = None,
    told: Callable[[Kill], object] = lambda _: None,
) -> Evidence:
    """Carry out the kills of one scenario, with so many messages for each.

    Afterwards the plugin has until `timeout` to handle the rest, while anything moves within `quiet` seconds. `keep` is
    a folder for everything that was written.
    """
    with rig(scenario, f"{seed} {scenario.name}", keep=keep) as made:
        killer = Killer(made, messages, told)
        killer.begin()
        for intent in planned:
            killer.kill(intent)
        with killer.in_peace():
            made.orders.settle()
            await_rest(made, quiet, timeout)
        return gather(made, killer.kills)
