"""Scene `faults`: each fault in turn, under a steady flow. Until when is a message handled again, and what was lost?"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from kepm_plugin.devagent.faults import Duplicate
from tests.chaos.scenes.board import Column
from tests.chaos.scenes.cases import CASES, Case, settings
from tests.chaos.scenes.report import Report, Row, seconds
from tests.chaos.scenes.setting import Engine
from tests.chaos.scenes.stage import Late, Order, Stage, stage

IDLE = r"fault \d+ is over: \w+, acted 0 times"
"""What the agent says of a fault that concerned nobody."""

MOMENT = 0.3
"""Seconds within which a fault comes."""

SERVED = 10
"""Messages of a flow that are handled before a fault comes."""

EXTRA = 10.0
"""Seconds beyond its bar that a recovery is waited for, so that the table says how long it took."""


@dataclass(slots=True)
class Outcome:
    """What one case did, in all rounds."""

    case: Case
    recovered: list[float] = field(default_factory=list[float])
    never: int = 0
    """Rounds without a recovery."""
    published: int = 0
    lost: list[int] = field(default_factory=list[int])
    again: int = 0
    """Handlings more than one, those of commands apart."""
    commands_again: int = 0
    copies: int = 0
    """Copies that a fault has made on purpose."""
    dropped: int = 0
    """What the embedded model dropped."""
    idle: list[str] = field(default_factory=list[str])
    """What the fault should have done and has not: then the row shows nothing."""

    def row(self) -> Row:
        """Return it as a line of the table."""
        case = self.case
        row = Row(
            case.name,
            {
                "median s": seconds(statistics.median(self.recovered)) if self.recovered else "-",
                "max s": seconds(max(self.recovered, default=0.0)) if self.recovered else "-",
                "bar s": case.bar,
                "messages": self.published,
                "lost": len(self.lost),
                "duplicates": self.again,
                "of commands": self.commands_again,
                "dropped by the broker": self.dropped,
            },
        )
        row.promise(not self.idle, f"the fault showed nothing: {self.idle}")
        row.promise(not self.never, f"nothing was handled any more in {self.never} rounds")
        row.promise(max(self.recovered, default=0.0) <= case.bar, f"recovered after more than {case.bar:g} s")
        row.promise(not self.lost, f"lost: {self.lost[:20]}")
        row.promise(case.process_dies or not self.commands_again, f"{self.commands_again} commands were handled twice")
        if self.copies:
            row.promise(self.again <= self.copies, f"{self.again} handled twice, of {self.copies} copies")
        return row


def inflict(stage: Stage, case: Case, outcome: Outcome, random: Random) -> None:
    """Carry out one round."""
    since = stage.deliveries(1 << 60)
    agent, mark, began = stage.agent, stage.agent.mark(), time.monotonic_ns()
    copies = _copies(stage)
    order = stage.order("mixed")
    stage.until(lambda: _handled(stage, order) >= SERVED, "messages are handled before the fault")
    # The record goes with the agent: what is in it now is owed then.
    before = stage.taken(order, since["total"]) if case.agent_dies else set[int]()
    threading.Event().wait(random.uniform(0, MOMENT))  # It comes at any moment.
    over = case.inflict(stage)
    try:
        outcome.recovered.append(stage.recovery(over, order.first, case.bar + EXTRA))
    except Late:
        outcome.never += 1
    order = stage.halted(order)

    def owed() -> set[int]:
        if case.agent_dies:
            return before
        return stage.taken(order, since["total"]) if case.embedded else stage.acknowledged(order)

    stage.settle(owed, order)
    outcome.published += order.count
    outcome.lost += sorted(stage.missing(order, owed()))
    outcome.again += stage.again(order)
    outcome.commands_again += stage.again(order, commands=True)
    if idle := agent.seen(IDLE, after=mark, timeout=0):
        outcome.idle.append(idle[0])
    if case.announced and not any(case.announced in state["reason"] for state in stage.states(began)):
        outcome.idle.append(f"{case.announced!r} was not said on Status")
    if not case.agent_dies:
        outcome.copies += _copies(stage) - copies
        outcome.dropped += stage.deliveries(1 << 60)["dropped"] - since["dropped"]


def _copies(stage: Stage) -> int:
    return int(stage.agent.control.faults()["counts"].get(Duplicate.__name__, 0))


def _handled(stage: Stage, order: Order) -> int:
    return sum(1 for when in stage.board.column(Column.HANDLED, order.first, order.first + 1_000) if when)


def chosen(names: Sequence[str]) -> list[Case]:
    """Return the cases whose name begins like one of these; without any, all."""
    return [case for case in CASES if not names or case.name.startswith(tuple(names))]


def play(cases: Iterable[Case], rounds: int, broker: Engine, seed: str) -> Report:
    """Inflict each case as often as asked."""
    report, cases, random = Report("faults"), list(cases), Random(seed)  # noqa: S311  no secret
    for setting in settings(broker):
        mine = [case for case in cases if (case.embedded, case.outbox) == (setting.embedded, setting.outbox)]
        if not mine:
            continue
        with stage(setting) as made:
            for case in mine:
                outcome = Outcome(case)
                for _ in range(rounds):
                    inflict(made, case, outcome, random)
                report.rows.append(outcome.row())
                print(f"{case.name}: {report.rows[-1].figures} {report.rows[-1].broken or ''}", flush=True)
    return report


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--rounds", type=int, default=3, help="of each fault")
    parser.add_argument("--only", action="append", default=[], help="faults whose name begins so; may be repeated")
    parser.add_argument("--broker", choices=("mosquitto", "nats"), default="mosquitto")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    return play(chosen(given.only), given.rounds, given.broker, given.seed)
