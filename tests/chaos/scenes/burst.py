"""Scene `burst`: more than a handler can do, at once, from a broker that drops what is not read, and equal messages."""

import argparse
import time

from tests.chaos.scenes.board import Column, Slot
from tests.chaos.scenes.memory import sampled
from tests.chaos.scenes.report import Report, Row
from tests.chaos.scenes.setting import Setting
from tests.chaos.scenes.stage import Order, Stage, stage

TIMES = 5
"""So many times the handler's rate."""

PAUSE = 2_000
"""Microseconds that the handler awaits."""

TRIED = 400
"""Messages by which the handler's rate is found."""

MEMORY = 16.0
"""MiB that a burst may cost: what may wait for one handler in memory (docs/running.md, Limits)."""


def rate_of_handler(stage: Stage, pause: int = PAUSE, padding: int = 0) -> float:
    """Return how many messages a second the handler does when they wait for it."""
    tried = stage.order("waiting", rate=100_000, count=TRIED, pause=pause, padding=padding)
    stage.until(lambda: not stage.missing(tried), "the handler's rate was found")
    times = stage.board.column(Column.HANDLED, tried.first, tried.end)
    return (TRIED - 1) / ((max(times) - min(times)) / 1e9)


def rate_of_source(stage: Stage, order: Order) -> float:
    """Return how many messages a second were published."""
    times = stage.board.column(Column.PUBLISHED, order.first, order.end)
    return (order.count - 1) / ((max(times) - min(times)) / 1e9)


def burst(stage: Stage, messages: int) -> Row:
    """Publish so many, five times as fast as they are handled."""
    rate = rate_of_handler(stage)
    record = stage.deliveries(1 << 60)
    began = time.monotonic()
    with sampled(stage.process) as samples:
        order = stage.order("waiting", rate=round(TIMES * rate), count=messages, pause=PAUSE)
        stage.until(lambda: stage.last() >= order.end - 1, "all were published", messages / rate + 60)
        waiting = order.count - _handled(stage, order)
        stage.settle(lambda: set(range(order.first, order.end)), order, timeout=2 * messages / rate + 60)
    took = time.monotonic() - began
    dropped = stage.deliveries(1 << 60)["dropped"] - record["dropped"]
    missing = stage.missing(order)
    ratio = rate_of_source(stage, order) / rate
    row = Row(
        "burst",
        {
            "messages": messages,
            "handled a second": round(rate),
            "published": f"{ratio:.1f} times as fast",
            "waited at most": waiting,
            "dropped by the broker": dropped,
            "not handled": len(missing),
            "duplicates": stage.again(order),
            "memory +MiB": samples.growth(),
            "bound MiB": MEMORY,
            "seconds": round(took),
        },
    )
    row.promise(not dropped, f"the queue of the broker dropped {dropped}")
    row.promise(not missing, f"not handled: {sorted(missing)[:20]}")
    row.promise(samples.growth() <= MEMORY, f"memory grew by {samples.growth()} MiB, more than {MEMORY:g}")
    return row


def _handled(stage: Stage, order: Order) -> int:
    return sum(1 for when in stage.board.column(Column.HANDLED, order.first, order.end) if when)


def equal(stage: Stage, messages: int) -> Row:
    """Publish the same bytes again and again: without an identity they are as many messages."""
    before = stage.board[Slot.HANDLED]
    order = stage.order("same", rate=5_000, count=messages)

    def handled() -> int:
        return stage.board[Slot.HANDLED] - before

    stage.rest(lambda: handled() >= messages and len(stage.acknowledged(order)) == messages)
    row = Row("equal messages", {"messages": messages, "not handled": messages - handled()})
    row.promise(handled() == messages, f"{handled()} of {messages} equal messages were handled")
    return row


def play(messages: int, same: int) -> Report:
    """Play both on the embedded model."""
    with stage(Setting(embedded=True)) as made:
        return Report("burst", [burst(made, messages), equal(made, same)])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--messages", type=int, default=50_000, help="of the burst")
    parser.add_argument("--equal", type=int, default=1_000, help="messages that are byte for byte the same")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    return play(given.messages, given.equal)
