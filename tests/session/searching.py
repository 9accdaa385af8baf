"""How the machine is run: small limits, so that they are reached; the same search each time, or another one."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import SessionMachine

EXAMPLES = 40
"""Programs that the framework has to pass."""

PATIENCE = 500
"""Programs within which each mutant has to be found; nearly all are found within the first few."""

STEPS = 40

SEED = 16
"""Of the programs."""

SMALL = {
    "kepm_plugin.dispatch._lane.LIMIT": 3,
    "kepm_plugin.dispatch._lane.LOW": 2,
    "kepm_plugin.dispatch._dispatcher.LIMIT": 3,
    "kepm_plugin.dispatch._dispatcher.PART": 2,
    "kepm_plugin.testing._memory.IN_FLIGHT": 4,
}
"""Messages of a lane in memory, of a reading from the journal, and in flight."""


@contextmanager
def small() -> Generator[None]:
    """Make the limits small, and the link's delays always the same."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(name, value)
        patch.setattr("kepm_plugin.link._link.Random", partial(Random, 0))
        yield


def search(*, journal: bool, keeps: bool, examples: int = EXAMPLES, shrink: bool = True) -> None:
    """Run the same programs each time, of plugins with or without a journal, on brokers that keep sessions or not.

    Raises:
        Broken: A promise was broken.
    """
    machine: type[SessionMachine] = type("Session", (SessionMachine,), {"journal": journal, "keeps": keeps})
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    with small():
        run_state_machine_as_test(
            seed(SEED)(machine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                phases=phases,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            ),
        )
