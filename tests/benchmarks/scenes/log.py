"""A log call of a plugin that is connected, against structlog's JSON to a file; and what sending the records adds.

A call is measured in its own thread. What sending adds is what the whole process used beyond that, until a watcher on
`KeeperLogger` had as many records.
"""

from typing import Final

from tests.benchmarks.broker import watching
from tests.benchmarks.figures import Bar, Measured, Row, Sample, in_turn, ratios
from tests.benchmarks.proc import used
from tests.benchmarks.process import Process
from tests.benchmarks.stage import Stage

OURS: Final = "ours"
STRUCTLOG: Final = "structlog, JSON to a file"
BAR: Final = Bar("<=", 0.6)
TOPIC: Final = "KeeperLogger"


def measure(stage: Stage) -> list[Measured]:
    """Measure both."""
    count = stage.size.messages
    order = stage.order(warm_up=count // 10, count=count, file=str(stage.folder / "records"))
    samples: dict[str, list[Sample]] = {OURS: [], STRUCTLOG: []}
    for _, name in in_turn([OURS, STRUCTLOG], stage.size.rounds):
        if name == STRUCTLOG:
            with stage.peer("structlog_file", order) as process:
                process.told("begin")
                samples[name].append({"call us": process.told("called")["caller"]})
        else:
            with stage.ours("logs", order) as process:
                samples[name].append(_ours(process, stage, order.warm_up, count))
    return [
        Measured(
            "log call, connected",
            samples,
            [
                Row(
                    "log call, ours / structlog's JSON to a file", ratios(samples, OURS, STRUCTLOG, "call us"), bar=BAR
                ),
                Row("log record, what sending adds", [sample["sending us"] for sample in samples[OURS]], "us"),
            ],
        )
    ]


def _ours(process: Process, stage: Stage, warm_up: int, count: int) -> Sample:
    with watching(stage.broker, TOPIC) as watcher:
        process.told("begin")
        before, had = used(process.pid).cpu, watcher.number(TOPIC)
        caller = process.told("called")["caller"]
        watcher.count(TOPIC, had + count)
        sending = (used(process.pid).cpu - before) / count * 1e6 - caller
    return {"call us": caller, "sending us": sending}
