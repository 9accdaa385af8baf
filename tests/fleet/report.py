"""What is printed: the model beside the real thing, and the table by which a strategy is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from tests.benchmarks.table import aligned
from tests.fleet.model import Costs, Outcome, Place, simulate
from tests.fleet.real import Measured
from tests.fleet.strategies import STRATEGIES, Strategy

SIZES: Final = (10, 50, 100, 200, 500)
SEEDS: Final = 3
"""Runs of the model whose median is shown."""
LINKS: Final = "both (the link's)"
SLOW: Final = 0.02
"""Seconds of an agent that needs much for a connection."""


def _figure(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def played(plugins: int, strategy: Strategy, place: Place, outage: float) -> list[Outcome]:
    """Return the outcomes of some runs."""
    return [simulate(plugins, strategy, place, outage=outage, seed=seed) for seed in range(SEEDS)]


def _median(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float]) -> float:
    return median(figure(one) for one in outcomes)


def comparison(measured: Sequence[Measured], costs: Costs, outage: float) -> str:
    """Return the real thing and the model, on as many processors as it had, in turn."""
    rows = [
        ("plugins", "", "median s", "last s", "peak/s", "refused", "given up", "CPU away", "CPU back", "processors")
    ]
    for one in measured:
        place = Place(costs=costs, processors=one.processors)
        found = played(one.plugins, STRATEGIES[LINKS], place, outage)
        refused = _median(found, lambda each: each.refused)
        rows += [
            (
                f"{one.plugins}",
                "real",
                _figure(median(one.served)),
                _figure(max(one.served)),
                f"{one.peak:.0f}",
                f"{one.refused}",
                f"{one.given_up}",
                f"{one.outage_cpu:.2f}",
                f"{one.return_cpu:.2f}",
                f"{one.processors:.2f}",
            ),
            (
                "",
                "model",
                _figure(_median(found, lambda each: each.median)),
                _figure(_median(found, lambda each: each.last)),
                f"{_median(found, Outcome.peak):.0f}",
                f"{refused:.0f}",
                f"{_median(found, lambda each: each.given_up):.0f}",
                f"{refused * costs.refused:.2f}",
                f"{one.plugins * (costs.connect + costs.after):.2f}",
                f"{one.processors:.2f}",
            ),
        ]
    return aligned(rows)


def choice(costs: Costs, sizes: Sequence[int] = SIZES, strategies: dict[str, Strategy] = STRATEGIES) -> str:
    """Return what becomes of fleets of some sizes by each strategy."""
    slow = replace(costs, broker=max(SLOW, costs.broker))
    scenes = (
        ("an outage of 3 s", Place(costs=costs), 3.0),
        ("an outage of 60 s", Place(costs=costs), 60.0),
        (f"3 s, {1 / slow.broker:.0f} a second at once", Place(costs=slow, at_once=True), 3.0),
    )
    return "\n\n".join(_scene(name, place, outage, sizes, strategies) for name, place, outage in scenes)


def _scene(name: str, place: Place, outage: float, sizes: Sequence[int], strategies: dict[str, Strategy]) -> str:
    """Return when the last one serves, for each size, and what else becomes of the largest."""
    of_the_largest = ("median s", "peak/s", "refused", "given up", "CPU/s away", "CPU s back")
    rows: list[tuple[str, ...]] = [(name, f"last of {sizes[0]}", *map(str, sizes[1:]), *of_the_largest)]
    for label, strategy in strategies.items():
        found = [played(plugins, strategy, place, outage) for plugins in sizes]
        largest = found[-1]
        away = _median(largest, lambda each: each.refused) * place.costs.refused
        rows.append(
            (
                f"  {label}",
                *(_figure(_median(each, lambda one: one.last)) for each in found),
                _figure(_median(largest, lambda each: each.median)),
                f"{_median(largest, Outcome.peak):.0f}",
                f"{_median(largest, lambda each: each.refused):.0f}",
                f"{_median(largest, lambda each: each.given_up):.0f}",
                _figure(away / outage),
                _figure(_median(largest, lambda each: each.work) - away),
            )
        )
    return aligned(rows)
