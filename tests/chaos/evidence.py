"""What a campaign leaves behind, and when it is complete."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.black_box import Slot
from tests.chaos.killing import Kill
from tests.chaos.ledger import Handled, Produced
from tests.chaos.rig import Gate, Rig

LOOK = 0.1
"""Seconds between two looks at the files of other processes, which tell nobody that they grew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Both ledgers, what the gate saw, and what the plugin's file holds at the end."""

    durable: bool
    """The broker keeps what is sent while the plugin is down."""
    journal: bool
    produced: Produced
    handled: Handled
    gate: Gate
    kills: list[Kill] = field(default_factory=list[Kill])
    given_up: Counter[int] = field(default_factory=Counter[int])
    """Dead letters, by the number of the message."""
    acknowledged: int = 0
    """Acknowledgements that the plugin gave to its sockets, in all runs."""
    left: int = 0
    """Messages in the journal at the end."""

    def acknowledged_by_plugin(self) -> set[int]:
        """Return the messages whose acknowledgement the gate has read."""
        return {number for number, digest in self.produced.digests.items() if digest in self.gate.acknowledged}

    def owed(self) -> set[int]:
        """Return the messages that must be handled: all that the broker, or else the plugin, has answered for."""
        return self.produced.acknowledged if self.durable else self.acknowledged_by_plugin()

    def unhandled(self) -> set[int]:
        """Return those that were not; a dead letter is an end, too."""
        return {number for number in self.owed() if number not in self.handled.ended and number not in self.given_up}

    def unanswered(self) -> set[int]:
        """Return the commands among them that were never answered."""
        return (self.owed() & self.produced.commands) - set(self.produced.answered)


def await_rest(rig: Rig, quiet: float, timeout: float) -> None:
    """Return when everything that must be handled was, or when nothing has moved for `quiet` seconds.

    The plugin runs, and the broker has acknowledged all that the producer sent.
    """
    ends, moved, size = time.monotonic() + timeout, time.monotonic(), -1
    while (now := time.monotonic()) < ends and now - moved < quiet:
        grown = sum((rig.work / name).stat().st_size for name in ("handled", "produced"))
        if grown != size:
            moved, size = now, grown
        elif not rig.journalled() and _complete(rig):
            return
        threading.Event().wait(LOOK)


def _complete(rig: Rig) -> bool:
    evidence = gather(rig, [])
    return not evidence.unhandled() and (not rig.scenario.journal or not evidence.unanswered())


def gather(rig: Rig, kills: list[Kill]) -> Evidence:
    """Read all files, and ask the gate."""
    return Evidence(
        durable=rig.scenario.durable,
        journal=rig.scenario.journal,
        produced=rig.produced(),
        handled=rig.handled(),
        gate=rig.gate(),
        kills=kills,
        given_up=rig.given_up(),
        acknowledged=sum(kill.acknowledged for kill in kills) + rig.box[Slot.ACKNOWLEDGED],
        left=rig.journalled(),
    )
