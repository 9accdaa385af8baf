"""Publishing at QoS 1 over TLS: ours one after the other, against aiomqtt with 20 calls in flight.

From before the first call until the broker has acknowledged everything.
"""

from typing import Final

from tests.benchmarks.figures import Bar, Measured, Row, Sample, in_turn, ratios
from tests.benchmarks.stage import Stage

OURS: Final = "ours"
AIOMQTT: Final = "aiomqtt, 20 in flight"
RATE, CPU = Bar(">=", 1.3), Bar("<=", 0.8)


def measure(stage: Stage) -> list[Measured]:
    """Measure both."""
    count = stage.size.publications
    order = stage.order(warm_up=count // 10, count=count)
    samples: dict[str, list[Sample]] = {OURS: [], AIOMQTT: []}
    for _, name in in_turn([OURS, AIOMQTT], stage.size.rounds):
        running = stage.ours("publishing", order) if name == OURS else stage.peer("aiomqtt_publishing", order)
        with running as process:
            told = process.told("figures")
        samples[name].append({"CPU us": told["cpu"], "per second": told["rate"], "peak MiB": told["peak"]})
    return [
        Measured(
            "publish, QoS 1 + TLS",
            samples,
            [
                Row("publish, rate, ours / aiomqtt", ratios(samples, OURS, AIOMQTT, "per second"), bar=RATE),
                Row("publish, CPU, ours / aiomqtt", ratios(samples, OURS, AIOMQTT, "CPU us"), bar=CPU),
            ],
        )
    ]
