"""Scene `flood`: for minutes twice as much as a handler can do. Is memory flat, is nothing lost, is all counted?"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.scenes.board import Slot
from tests.chaos.scenes.burst import rate_of_handler, rate_of_source
from tests.chaos.scenes.memory import MEBIBYTE, Samples, sampled
from tests.chaos.scenes.report import Report, Row
from tests.chaos.scenes.setting import Setting
from tests.chaos.scenes.stage import Order, Stage, stage

TIMES = 2
"""So many times the handler's rate."""

PAUSE = 500
"""Microseconds that the handler awaits."""

WARM_UP = 0.1
"""Part of the time in which memory may still grow."""

FLAT = 10.0
"""MiB that it may grow by afterwards."""

LANE = 32.0
LANE_MESSAGES = 2_000
"""MiB and messages that may wait for one handler without a journal: twice 16, and 1,000 (docs/running.md, Limits)."""

BIG = 20_000
"""Bytes of a message with which a lane is full by its bytes."""

UNLIMITED = ("--unlimited-queue",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """One line of the table."""

    name: str
    setting: Setting
    qos: int = 1
    padding: int = 0
    share: float = 1.0
    """Part of the messages that were asked for."""


FLOODS = (
    Flood(name="mosquitto", setting=Setting(options=UNLIMITED)),
    Flood(name="embedded", setting=Setting(embedded=True)),
    Flood(name="mosquitto, no journal", setting=Setting(options=UNLIMITED, journal=False)),
    Flood(name="embedded, no journal", setting=Setting(embedded=True, journal=False)),
    Flood(
        name="embedded, no journal, large",
        setting=Setting(embedded=True, journal=False),
        padding=BIG,
        share=0.05,
    ),
    Flood(name="mosquitto, QoS 0", setting=Setting(options=UNLIMITED), qos=0),
    Flood(name="embedded, QoS 0", setting=Setting(embedded=True), qos=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted on the way of the messages until now."""

    written: dict[int, int]
    """By QoS: what the gate has written to the plugin's socket, echoes apart."""
    broker: int
    """What the embedded model has dropped."""
    handled: int
    dropped: int
    """What the plugin has dropped at QoS 0, by its own Status."""

    @classmethod
    def of(cls, stage: Stage) -> "Counts":
        """Count what is there now."""
        record, echoes = stage.deliveries(1 << 60), stage.board[Slot.ECHOES]
        return cls(
            written={0: record["sent_qos0"] - echoes, 1: record["sent"]},
            broker=record["dropped"],
            handled=stage.board[Slot.HANDLED],
            dropped=int(stage.states()[-1]["counters"]["dropped"]),
        )

    def since(self, before: "Counts") -> "Counts":
        """Return what has come since."""
        return Counts(
            written={qos: count - before.written[qos] for qos, count in self.written.items()},
            broker=self.broker - before.broker,
            handled=self.handled - before.handled,
            dropped=self.dropped - before.dropped,
        )


def flood(stage: Stage, kind: Flood, messages: int) -> Row:
    """Publish so many, twice as fast as they are handled."""
    rate = rate_of_handler(stage, PAUSE, kind.padding)
    stage.await_states(2)  # The second one is from after what was handled before.
    before, began = Counts.of(stage), time.monotonic_ns()
    with sampled(stage.process) as samples:
        order = stage.order(
            "waiting", rate=round(TIMES * rate), count=messages, pause=PAUSE, padding=kind.padding, qos=kind.qos
        )
        # Without a journal the broker's own back-pressure may reach the source.
        stage.until(lambda: stage.last() >= order.end - 1, "all were published", 3 * messages / rate + 60)

        def enough() -> bool:
            counts = Counts.of(stage).since(before)
            return counts.handled + counts.dropped >= counts.written[kind.qos] >= messages - counts.broker

        stage.rest(enough, timeout=2 * messages / rate + 60)
    stage.await_states(2)
    counts = Counts.of(stage).since(before)
    written = counts.written[kind.qos]
    row = Row(
        kind.name,
        {
            "messages": messages,
            "handled a second": round(rate),
            "published": f"{rate_of_source(stage, order) / rate:.1f} times as fast",
            "dropped by the broker": messages - written,
            "written to the plugin": written,
            "handled": counts.handled,
            "dropped": counts.dropped,
        },
    )
    if kind.qos:
        _judge_losses(row, stage, kind, order, counts)
    else:
        row.promise(
            written == counts.handled + counts.dropped,
            f"{written - counts.handled - counts.dropped} messages at QoS 0 were neither handled nor counted",
        )
    _judge_memory(row, kind, samples)
    overloaded = any("overloaded" in state["reason"] for state in stage.states(began))
    row.figures["overloaded"] = "announced" if overloaded else "no"
    behind = messages * (TIMES - 1) / TIMES  # as the last one is published
    if not kind.setting.journal and (behind > LANE_MESSAGES or behind * kind.padding > LANE * MEBIBYTE):
        row.promise(overloaded, "overloaded was not announced on Status")
    row.figures["seconds"] = round((time.monotonic_ns() - began) / 1e9)
    return row


def _judge_losses(row: Row, stage: Stage, kind: Flood, order: Order, counts: Counts) -> None:
    # Who does not read has the embedded model drop: then what the plugin was given is what it owes.
    dropping = kind.setting.embedded and not kind.setting.journal
    lost = stage.missing(order, stage.taken(order) if dropping else None)
    row.figures["lost"] = len(lost)
    row.promise(not lost, f"lost: {sorted(lost)[:20]}")
    if dropping:
        given = counts.written[kind.qos]
        row.promise(counts.handled == given, f"{counts.handled} were handled of {given} that the plugin was given")
    else:
        row.promise(not counts.broker, f"the broker dropped {counts.broker}")


def _judge_memory(row: Row, kind: Flood, samples: Samples) -> None:
    growth, bound = (samples.growth(WARM_UP), FLAT) if kind.setting.journal else (samples.growth(), LANE)
    row.figures |= {"memory +MiB": growth, "bound MiB": bound}
    row.promise(growth <= bound, f"memory grew by {growth} MiB, more than {bound:g}")


def play(floods: Sequence[Flood], messages: int) -> Report:
    """Play each on a stage of its own."""
    report = Report("flood")
    for kind in floods:
        with stage(kind.setting) as made:
            report.rows.append(flood(made, kind, round(messages * kind.share)))
        print(f"{kind.name}: {report.rows[-1].figures} {report.rows[-1].broken or ''}", flush=True)
    return report


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--messages", type=int, default=200_000, help="of each flood")
    parser.add_argument("--only", action="append", choices=[kind.name for kind in FLOODS], help="may be repeated")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    return play([kind for kind in FLOODS if not given.only or kind.name in given.only], given.messages)
