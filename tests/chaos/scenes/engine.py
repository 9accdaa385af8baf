"""Scene `engine`: `kill -9` of the broker engine again and again. What is lost, and how long is the plugin deaf?"""

import argparse
import threading
import time
from collections.abc import Sequence
from random import Random

from tests.chaos.scenes.report import Report, Row, at, seconds
from tests.chaos.scenes.setting import Engine, Setting
from tests.chaos.scenes.stage import Late, Stage, stage

RATE = 50
"""Messages a second."""

UNDISTURBED = 0.8
"""Seconds between a recovery and the next kill, at most."""

DOWN = 0.5
"""Seconds that the engine stays down, at most."""

BAR = 1.5
"""Seconds from the engine's return to a fresh message that was handled: of 99 in 100 kills."""


def kill(stage: Stage, random: Random, since: int) -> float:
    """Kill the engine at a random moment; return after how many seconds of its return a fresh message was handled."""
    threading.Event().wait(random.uniform(0, UNDISTURBED))  # The moment is what is random.
    mark = stage.agent.mark()
    stage.agent.control.kill_engine(pause=random.uniform(0, DOWN))
    stage.agent.until("accepts again", after=mark)
    return stage.recovery(time.monotonic_ns(), since)


def row(engine: Engine, kills: int, seed: str, bar: float = BAR) -> Row:
    """Carry out all kills on one engine."""
    random = Random(f"{seed} {engine}")  # noqa: S311  no secret
    recovered: list[float] = []
    began = time.monotonic()
    with stage(Setting(broker=engine)) as made:
        order = made.order("mixed", rate=RATE)
        made.until(lambda: len(made.acknowledged(order)) >= RATE, "the flow has begun")
        never = ""
        try:
            for number in range(kills):
                recovered.append(kill(made, random, made.last()))
                if (number + 1) % 20 == 0:
                    print(f"{engine}: {number + 1} kills, median {at(0.5, recovered):.2f} s", flush=True)
        except Late as exc:
            never = str(exc)
        order = made.halted(order)
        made.settle(lambda: made.acknowledged(order), order)
        acknowledged = made.acknowledged(order)
        lost = made.missing(order, acknowledged)
        again = made.again(order) + made.again(order, commands=True)
    result = Row(
        engine,
        {
            "kills": len(recovered),
            "acknowledged": len(acknowledged),
            "lost": len(lost),
            "duplicates": again,
            "median s": seconds(at(0.5, recovered)),
            "p99 s": seconds(at(0.99, recovered)),
            "max s": seconds(max(recovered, default=0.0)),
            "bar s": bar,
            "minutes": round((time.monotonic() - began) / 60, 1),
        },
    )
    result.promise(not never, never)
    result.promise(not lost, f"lost: {sorted(lost)[:20]}")
    result.promise(at(0.99, recovered) <= bar, f"p99 of the recoveries is above {bar:g} s")
    return result


def play(engines: Sequence[Engine], kills: int, seed: str, bar: float = BAR) -> Report:
    """Carry out the kills on each engine."""
    return Report("engine", [row(engine, kills, seed, bar) for engine in engines])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--kills", type=int, default=200, help="on each engine")
    parser.add_argument("--broker", action="append", choices=("mosquitto", "nats"), help="this engine alone")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    return play(given.broker or ("nats", "mosquitto"), given.kills, given.seed)
