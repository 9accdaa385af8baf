"""The real thing, short: what came of it is what the model says; how long it took is the machine's affair."""

from collections.abc import Generator

import pytest

from tests.fleet.model import Costs, Place, simulate
from tests.fleet.real import Measured, fleet, started
from tests.fleet.report import LINKS, comparison
from tests.fleet.strategies import STRATEGIES

PLUGINS = 10
OUTAGE = 1.0


@pytest.fixture(scope="module")
def measured() -> Generator[Measured]:
    """One outage of ten plugins in two processes."""
    with fleet(PLUGINS) as found:
        yield found.outage(OUTAGE, settled=0.0)


def test_all_come_back_as_in_the_model(measured: Measured) -> None:
    model = simulate(PLUGINS, STRATEGIES[LINKS], Place(), outage=OUTAGE, seed=1)
    assert len(measured.served) == len(model.served) == PLUGINS
    assert measured.given_up == model.given_up == 0
    assert measured.refused >= PLUGINS  # each tries at once, while nobody listens
    assert model.refused >= PLUGINS
    assert min(measured.served) > 0


def test_processes_that_are_started_at_once_all_serve() -> None:
    served, each, _ = started(2)
    assert len(served) == 2
    assert 0 < served[0] <= served[1]
    assert each > 0


def test_what_it_took_is_measured(measured: Measured) -> None:
    assert measured.outage_cpu > 0
    assert measured.return_cpu >= measured.connect_cpu > 0
    assert measured.broker_cpu > 0
    assert measured.api_cpu > 0
    assert measured.peak >= 10.0
    assert measured.processors >= 0.25


def test_both_are_printed(measured: Measured) -> None:
    lines = comparison([measured], Costs(), OUTAGE).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["10", "real"], ["model", *lines[2].split()[1:2]]]
