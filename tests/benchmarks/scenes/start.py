"""From the start of a process until its status says that it serves, and its memory a little later.

Ours against a script written by hand. Both publish their status once the broker has confirmed the subscription; when it
comes is noted outside.
"""

import time
from typing import Final

from tests.benchmarks.broker import watching
from tests.benchmarks.figures import Bar, Measured, Row, Sample, in_turn, ratios
from tests.benchmarks.proc import memory
from tests.benchmarks.stage import Stage

OURS: Final = "ours"
HAND: Final = "script by hand"
START, MEMORY = Bar("<=", 1.35), Bar("<=", 1.30)
WARM_UP: Final = 1
"""Rounds that do not count: the first one reads files from the disk and writes byte code."""


def measure(stage: Stage) -> list[Measured]:
    """Start both again and again."""
    order = stage.order()
    samples: dict[str, list[Sample]] = {OURS: [], HAND: []}
    with watching(stage.broker, "Bench/Status", "Hand/Status") as watcher:
        for number, name in in_turn([OURS, HAND], WARM_UP + stage.size.rounds):
            since = time.monotonic()
            running = stage.ours("resting", order) if name == OURS else stage.peer("handwritten", order)
            with running as process:
                ready = watcher.running("Bench/Status" if name == OURS else "Hand/Status", since)
                time.sleep(stage.size.settle)
                found = memory(process.pid)
            if number >= WARM_UP:
                samples[name].append({"start ms": (ready - since) * 1e3, **found})
    return [
        Measured(
            "start, and memory at rest, TLS",
            samples,
            [
                Row("process start to subscribed, ours / script", ratios(samples, OURS, HAND, "start ms"), bar=START),
                Row("resident memory at rest, ours / script", ratios(samples, OURS, HAND, "RSS MiB"), bar=MEMORY),
            ],
        )
    ]
