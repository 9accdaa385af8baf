"""Scene `stuck`: messages that one handler never finishes. Do the other handlers, and the echo, go on as before?"""

import argparse
import time
from collections.abc import Sequence

from tests.chaos.scenes.board import Column, Slot
from tests.chaos.scenes.report import Report, Row, at
from tests.chaos.scenes.scene_plugin import Stuck
from tests.chaos.scenes.setting import Engine, Setting
from tests.chaos.scenes.stage import Order, Stage, stage

MESSAGES = 30
RATE = 100
"""Messages a second for the other handlers."""

QUARTILE = 0.25
"""Part of the latencies whose largest is compared: the quick ones tell least of what else the machine does."""

RATIO = 3.0
"""What that may be, in terms of that before."""

FINE = 0.02
"""Seconds below which no ratio says anything."""

QUIET = 25.0
"""Seconds without a message: at least one echo is sent in them, and the link is given up where it does not come."""


def row(engine: Engine, seconds: float, quiet: float, fine: float = FINE) -> Row:
    """Measure the others before, and while messages are stuck."""
    with stage(Setting(broker=engine)) as made:
        before = _flow(made, seconds)
        stuck = made.order("stuck", rate=1_000, count=MESSAGES)
        made.until(lambda: len(made.acknowledged(stuck)) == MESSAGES, "the broker took what will be stuck")
        made.until(lambda: made.board[Slot.BEGUN] == Stuck.concurrency, "the handler is stuck")
        during = _flow(made, seconds)
        echoes = made.board[Slot.ECHOES]
        if quiet:
            time.sleep(quiet)  # Without a message: that is what is tested.
        echoes = made.board[Slot.ECHOES] - echoes
        after = _flow(made, 1.0)
        made.await_states(2)
        link = made.states()[-1]["transitions"]
        missing = [made.missing(order) for order in (before, during, after)]
        latencies = [_latencies(made, order) for order in (before, during)]
        given = made.deliveries(1 << 60)
    quick = [at(QUARTILE, each) for each in latencies]
    ratio = quick[1] / quick[0]
    result = Row(
        engine,
        {
            "stuck": MESSAGES,
            "others": before.count + during.count + after.count,
            "quartile ms before": _ms(quick[0]),
            "during": _ms(quick[1]),
            "ratio": round(ratio, 2),
            "median before": _ms(at(0.5, latencies[0])),
            "median during": _ms(at(0.5, latencies[1])),
            "not handled": sum(map(len, missing)),
            "sessions": link["up"],
            "echoes": echoes,
            "unacknowledged": given["sent"] - given["total"],
        },
    )
    result.promise(not any(missing), f"messages for other handlers were not handled: {missing}")
    result.promise(ratio <= RATIO or quick[1] < fine, f"the others' latency is {ratio:.1f} times that before")
    result.promise(link["up"] == 1 and not link["lost"] + link["echoMissed"], f"the link did not stay up: {link}")
    result.promise(bool(echoes) or not quiet, "no echo was sent")
    return result


def _flow(stage: Stage, seconds: float) -> Order:
    order = stage.order("mixed", rate=RATE, count=round(RATE * seconds))
    stage.until(lambda: stage.last() == order.end - 1, "all were published", 2 * seconds + 10)
    stage.settle(lambda: set(range(order.first, order.end)), order)
    return order


def _ms(value: float) -> float:
    return round(value * 1_000, 1)


def _latencies(stage: Stage, order: Order) -> list[float]:
    published = stage.board.column(Column.PUBLISHED, order.first, order.end)
    handled = stage.board.column(Column.HANDLED, order.first, order.end)
    return [(after - before) / 1e9 for before, after in zip(published, handled, strict=True) if after]


def play(engines: Sequence[Engine], seconds: float, quiet: float, fine: float = FINE) -> Report:
    """Play it on each engine."""
    return Report("stuck", [row(engine, seconds, quiet, fine) for engine in engines])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--seconds", type=float, default=20.0, help="of the flow before, and of that during")
    parser.add_argument("--quiet", type=float, default=QUIET, help="seconds without a message; 0: no echo is awaited")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    return play(("mosquitto", "nats"), given.seconds, given.quiet)
