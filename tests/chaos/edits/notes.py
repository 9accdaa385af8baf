"""What the plugin of the scene `settings` notes: its transactions, and every snapshot that anybody in it has seen.

A file that is only appended to, one line of JSON in one write each, which `kill -9` leaves complete. Times are
`time.monotonic_ns`, the same in all processes.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

FOREIGN: Final = 1_000_000
"""Stamps of others begin here; those of our transactions are their numbers, from 1 on; 0 is the file's."""

SECRET: Final = "hush-hush-"
"""What marks the scene's secret values, so that they can be looked for."""

STAMPS: Final = ("x", "y", "z", "trail")
"""What every transaction writes its number to."""

EVERY_OTHER: Final = "token"
"""What every transaction with an even number writes, too."""


class Snapshot(NamedTuple):
    """Settings as numbers: of each key its stamp, and the two bounds."""

    x: int
    y: int
    z: int
    trail: int
    token: int
    low: int
    high: int

    @property
    def own(self) -> frozenset[int]:
        """The numbers of our transactions among the keys that each of them writes."""
        return frozenset(value for value in self[: len(STAMPS)] if is_own(value))


def is_own(stamp: int) -> bool:
    """Tell whether a stamp is the number of one of our transactions."""
    return 0 < stamp < FOREIGN


def written_by(number: int) -> tuple[str, ...]:
    """Return the keys that a transaction writes its number to."""
    return STAMPS if number % 2 else (*STAMPS, EVERY_OTHER)


Kind = Literal["edit", "breaks a rule", "author fails", "hasty", "revert"]
Reader = Literal["up", "call", "told", "writer"]
"""Who saw a snapshot: the plugin as it came up, a handler's call, `on_settings_changed`, or who has just written."""

DONE: Final = "done"
CANCELLED: Final = "cancelled"
UNEXPECTED: Final = "unexpected "
"""What an outcome begins with that is no error of the framework's tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at the settings. `call` numbers the calls of handlers within a run."""

    at: int
    run: int
    by: Reader
    snapshot: Snapshot
    call: int = 0


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One transaction of the plugin. What a kill has cut has no end."""

    number: int
    kind: Kind
    run: int
    begun: int
    ended: int | None = None
    outcome: str | None = None
    """`DONE`, `CANCELLED`, or the name of the error that was reported."""
    after: Snapshot | None = None
    """What the writer saw when it was done."""

    @property
    def failed(self) -> bool:
        """Whether its writer was told that nothing of it is there."""
        return self.outcome not in (None, DONE, CANCELLED)


@dataclass(slots=True)
class Notes:
    """Everything that was noted, in order."""

    seen: list[Seen] = field(default_factory=list[Seen])
    transactions: dict[int, Transaction] = field(default_factory=dict[int, Transaction])


class Notebook:
    """The file, open for the process of one run."""

    def __init__(self, path: Path, run: int) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._run = run

    def saw(self, by: Reader, snapshot: Snapshot, call: int = 0) -> None:
        """Note a look at the settings."""
        self._note("saw", by, snapshot, call)

    def begun(self, number: int, kind: Kind) -> None:
        """Note the begin of a transaction."""
        self._note("begun", number, kind)

    def ended(self, number: int, outcome: str, after: Snapshot | None = None) -> None:
        """Note the end of a transaction, as it was reported."""
        self._note("ended", number, outcome, after)

    def _note(self, what: str, *rest: object) -> None:
        line = json.dumps([what, time.monotonic_ns(), self._run, *rest], separators=(",", ":"))
        os.write(self._descriptor, f"{line}\n".encode())


def read_notes(path: Path) -> Notes:
    """Read what all runs have noted."""
    notes = Notes()
    for text in path.read_text().splitlines() if path.exists() else ():
        what, at, run, *rest = json.loads(text)
        if what == "saw":
            by, snapshot, call = rest
            notes.seen.append(Seen(at=at, run=run, by=by, snapshot=Snapshot(*snapshot), call=call))
        elif what == "begun":
            number, kind = rest
            notes.transactions[number] = Transaction(number=number, kind=kind, run=run, begun=at)
        else:
            number, outcome, after = rest
            done = notes.transactions[number]
            done.ended, done.outcome = at, outcome
            if after is not None:
                done.after = Snapshot(*after)
                notes.seen.append(Seen(at=at, run=run, by="writer", snapshot=done.after))
    return notes
