"""Receiving a typed payload: ours against each peer, at QoS 0 without TLS and at QoS 1 with it, and with the journal.

The receiver is stopped while the broker is given a burst, and let go on when the broker has it: so what is measured is
the receiver, and the broker's hand-over to it. The publisher does nothing meanwhile.
"""

import time
from dataclasses import replace
from typing import Final

from tests.benchmarks.figures import Bar, Measured, Row, Sample, Samples, in_turn, ratios
from tests.benchmarks.order import Order
from tests.benchmarks.process import PATIENCE, BenchmarkError, Process
from tests.benchmarks.source import Source, bursts, publishing
from tests.benchmarks.stage import Stage

OURS: Final = "ours"
JOURNAL: Final = "ours, journal"
LOOP: Final = "aiomqtt loop"
PAHO: Final = "paho callbacks"
FASTSTREAM: Final = "FastStream"

PEERS: Final = {
    LOOP: "aiomqtt_loop",
    PAHO: "paho_callbacks",
    "gmqtt": "gmqtt_callbacks",
    FASTSTREAM: "faststream_app",
    "fastapi-mqtt": "fastapi_mqtt_app",
}

BARS: Final = {LOOP: Bar("<=", 0.45), PAHO: Bar("<=", 0.85), FASTSTREAM: Bar("<=", 0.12)}
JOURNAL_BAR: Final = Bar("<=", 0.60)
"""CPU per message, ours against the peer."""

WARM_UP: Final = 1
"""Bursts before those that count, besides the one that ends where these begin."""

LOOK_AGAIN: Final = 0.05
"""Seconds between two messages that find out whether the subscription is in force."""

SETTLED: Final = 0.2
"""Seconds after the first message, for what else a process does when it begins."""


def measure(stage: Stage, peers: dict[str, str] = PEERS) -> list[Measured]:
    """Measure both legs."""
    plain, secure = stage.order(tls=False, qos=0), stage.order(tls=True, qos=1)
    first = _samples(stage, plain, [OURS, *peers], peers)
    second = _samples(stage, secure, [OURS, JOURNAL, *peers], peers)
    with_journal = [
        Row(
            f"receive with the journal, QoS 1 + TLS, ours / {LOOP}",
            ratios(second, JOURNAL, LOOP, "CPU us"),
            bar=JOURNAL_BAR,
        )
    ]
    return [
        Measured("receive, QoS 0, plain", first, _rows(first, "QoS 0", peers)),
        Measured("receive, QoS 1 + TLS", second, [*_rows(second, "QoS 1 + TLS", peers), *with_journal]),
    ]


def _samples(stage: Stage, order: Order, names: list[str], peers: dict[str, str]) -> Samples:
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for _, name in in_turn(names, stage.size.rounds):
        if name in peers:
            with stage.peer(peers[name], order) as process:
                samples[name].append(drained(process, stage, order))
        else:
            samples[name].append(ours(stage, replace(order, journal=name == JOURNAL)))
    return samples


def _rows(samples: Samples, leg: str, peers: dict[str, str]) -> list[Row]:
    return [
        Row(f"receive, {leg}, ours / {name}", ratios(samples, OURS, name, "CPU us"), bar=BARS.get(name))
        for name in peers
    ]


def ours(stage: Stage, order: Order) -> Sample:
    """Measure ours once."""
    with stage.ours("receiving", order) as process:
        return drained(process, stage, order)


def drained(process: Process, stage: Stage, order: Order) -> Sample:
    """Measure how a receiver takes bursts.

    Raises:
        BenchmarkError: It failed.
    """
    ready = bursts(order.burst, order.qos, order.handlers)
    with publishing(stage.broker.plain) as source:
        _until_ready(process, source, order)
        for _ in range(WARM_UP):
            _burst(process, source, next(ready), order)
        _, before = _burst(process, source, next(ready), order)
        count = max(1, stage.size.messages // order.burst)
        taken = [_burst(process, source, next(ready), order) for _ in range(count)]
    seconds, last = sum(took for took, _ in taken), taken[-1][1]
    messages, cpu = count * order.burst, last["cpu"] - before["cpu"]
    return {
        "CPU us": cpu / messages * 1e6,
        "per second": messages / seconds,
        "busy": cpu / seconds,
        "peak MiB": last["peak"],
    }


def _burst(process: Process, source: Source, burst: bytes, order: Order) -> tuple[float, dict[str, float]]:
    """Return how long a receiver took for a burst, and what it told then."""
    with process.halted():
        source.send(burst, order.burst if order.qos else 0)
        since = time.monotonic()
    told = process.told("drained")
    return told["at"] - since, told


def _until_ready(process: Process, source: Source, order: Order) -> None:
    """Publish one message now and then, until the receiver tells that it has got one."""
    one = next(bursts(1, order.qos, order.handlers))
    for _ in range(round(PATIENCE / LOOK_AGAIN)):
        source.send(one, order.qos)
        if (told := process.heard(LOOK_AGAIN)) is not None:
            break
    else:
        told = process.told("ready")
    if told["event"] != "ready":
        raise BenchmarkError(f"a receiver told {told} in place of ready")
    time.sleep(SETTLED)
