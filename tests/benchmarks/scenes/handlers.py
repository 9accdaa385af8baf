"""1,000 handlers against one: each has a topic of its own, and each message is for the next one."""

from dataclasses import replace
from typing import Final

from tests.benchmarks.figures import Bar, Measured, Row, Sample, in_turn, ratios
from tests.benchmarks.scenes.receive import ours
from tests.benchmarks.stage import Stage

COUNTS: Final = {"1 handler": 1, "1,000 handlers": 1_000}
BAR: Final = Bar("<=", 1.05)


def measure(stage: Stage) -> list[Measured]:
    """Measure ours with few handlers and with many."""
    order = stage.order(tls=False, qos=0)
    samples: dict[str, list[Sample]] = {name: [] for name in COUNTS}
    for _, name in in_turn(list(COUNTS), stage.size.rounds):
        samples[name].append(ours(stage, replace(order, handlers=COUNTS[name])))
    many, one = reversed(COUNTS)
    row = Row(f"{many} / {one}, QoS 0", ratios(samples, many, one, "CPU us"), bar=BAR)
    return [Measured("receive by the number of handlers, QoS 0, plain", samples, [row])]
