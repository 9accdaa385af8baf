"""How the machine is run: with small limits, so that they are reached, for plugins and brokers of each kind."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import SessionMachine

EXAMPLES = 40
"""Programs of each kind of plugin and broker in the suite; `python -m tests.session` tries more."""

STEPS = 40

SMALL = {
    "kepm_plugin.dispatch._lane.LIMIT": 3,
    "kepm_plugin.dispatch._lane.LOW": 2,
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


def machine_of(*, journal: bool, keeps: bool) -> type[SessionMachine]:
    """Return the machine of a plugin with or without a journal, on a broker that keeps sessions or does not."""
    return type("Session", (SessionMachine,), {"journal": journal, "keeps": keeps})


def search(*, journal: bool, keeps: bool, examples: int = EXAMPLES, derandomize: bool = True) -> None:
    """Run programs, with `derandomize` not others each time.

    Raises:
        Broken: A promise was broken.
    """
    with small():
        run_state_machine_as_test(
            machine_of(journal=journal, keeps=keeps),
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                derandomize=derandomize,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            ),
        )
