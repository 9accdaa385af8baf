"""At rest: heartbeat, echo and the watch of settings, and nothing else, for a minute. Several copies rest at once."""

import time
from contextlib import ExitStack
from typing import Final

from tests.benchmarks.broker import watching
from tests.benchmarks.figures import Bar, Measured, Row, Sample
from tests.benchmarks.proc import memory, used
from tests.benchmarks.stage import Stage

OURS: Final = "ours"
CPU, WAKEUPS = Bar("<=", 2.0), Bar("<=", 3.0)


def measure(stage: Stage) -> list[Measured]:
    """Let as many copies rest as other scenes have rounds."""
    copies = range(1, stage.size.rounds + 1)
    with ExitStack() as stack, watching(stage.broker, "+/Status") as watcher:
        processes = [stack.enter_context(stage.ours("resting", stage.order(copy=number))) for number in copies]
        for number in copies:
            watcher.running(f"Bench{number}/Status")
        time.sleep(stage.size.settle)
        since = time.monotonic()
        before = [used(process.pid) for process in processes]
        time.sleep(stage.size.rest)
        after, seconds = [used(process.pid) for process in processes], time.monotonic() - since
        samples: list[Sample] = [
            {
                "CPU ms/s": (end.cpu - begin.cpu) / seconds * 1e3,
                "wake-ups/s": (end.wakeups - begin.wakeups) / seconds,
                **memory(process.pid),
            }
            for process, begin, end in zip(processes, before, after, strict=True)
        ]
    return [
        Measured(
            f"at rest over {seconds:.0f} s, TLS",
            {OURS: samples},
            [
                Row("at rest, CPU", [sample["CPU ms/s"] for sample in samples], "ms/s", CPU),
                Row("at rest, wake-ups", [sample["wake-ups/s"] for sample in samples], "/s", WAKEUPS),
            ],
        )
    ]
