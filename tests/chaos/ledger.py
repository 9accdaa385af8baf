"""Ledgers: what a process has done, one line each, in files that `kill -9` leaves complete.

A line is one write to a file that is opened for appending. The plugin's has `t` for messages that were taken from the
socket, `b` and `e` for the begin and the end of a handler's call; the producer's `p`, `a` and `r` for published,
acknowledged by the broker, and answered.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path


class Ledger:
    """A file that one process appends to."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *line: object) -> None:
        """Append a line."""
        os.write(self._descriptor, (" ".join(map(str, line)) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@dataclass(slots=True)
class Handled:
    """What the plugin's handlers noted, by a message's number."""

    taken: dict[int, list[int]] = field(default_factory=lambda: defaultdict[int, list[int]](list))
    """Runs that read it from the socket."""
    begun: dict[int, list[int]] = field(default_factory=lambda: defaultdict[int, list[int]](list))
    """Runs in which its handler was called."""
    ended: Counter[int] = field(default_factory=Counter[int])
    """How often its handler came to its end."""


@dataclass(slots=True)
class Produced:
    """What the producer noted."""

    digests: dict[int, str] = field(default_factory=dict[int, str])
    """SHA-256 of the payloads that were published, by number."""
    topics: dict[int, str] = field(default_factory=dict[int, str])
    acknowledged: set[int] = field(default_factory=set[int])
    repeated: Counter[int] = field(default_factory=Counter[int])
    """Publications that were sent again over another connection."""
    answered: Counter[int] = field(default_factory=Counter[int])

    @property
    def commands(self) -> set[int]:
        """The messages that ask for an answer."""
        return {number for number, topic in self.topics.items() if "/Commands/" in topic}


def read_handled(path: Path) -> Handled:
    """Read the plugin's ledger."""
    handled = Handled()
    for kind, run, *numbers in _lines(path):
        for number in map(int, numbers if kind == "t" else numbers[:1]):
            if kind == "t":
                handled.taken[number].append(int(run))
            elif kind == "b":
                handled.begun[number].append(int(run))
            else:
                handled.ended[number] += 1
    return handled


def read_produced(path: Path) -> Produced:
    """Read the producer's ledger."""
    produced = Produced()
    for kind, text, *rest in _lines(path):
        number = int(text)
        if kind == "p":
            if number in produced.digests:
                produced.repeated[number] += 1
            produced.topics[number], produced.digests[number] = rest
        elif kind == "a":
            produced.acknowledged.add(number)
        else:
            produced.answered[number] += 1
    return produced


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
