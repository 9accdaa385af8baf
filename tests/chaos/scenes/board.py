"""The board of a scene: what was published, acknowledged, answered and handled, by the number of a message.

A file of numbers that the harness, the source and the plugin map into their memory. What a process has noted stays when
it is killed, needs no system call, and is not concerned by a disk that is full. Each column has one writer.
"""

import mmap
import threading
import time
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from tests.chaos.shared_numbers import WIDTH, Numbers

CAPACITY: Final = 250_000
"""Messages of one stage; their numbers begin with 1."""

_HEADER: Final = 64


class Slot(IntEnum):
    """Numbers that are there once. The first ones are orders to the source, also to one that is started anew."""

    UNTIL = 0
    """Number of the last message that may be published."""
    RATE = 1
    """Messages a second."""
    KIND = 2
    """Which kind, by its place among `messages.KINDS`."""
    PAUSE = 3
    """Microseconds that a handler works at a message."""
    PADDING = 4
    """Bytes that a message is made longer by."""
    QOS = 5
    LAST = 6
    """Number of the last message that was published."""
    ACKNOWLEDGED = 7
    """How many the broker has acknowledged."""
    ECHOES = 8
    """Echoes of the plugin that the source has read, too."""
    HANDLED = 9
    """How often a handler came to its end."""
    BEGUN = 10
    """How often a handler was called."""


class Column(IntEnum):
    """Numbers that there are for each message. Times are `time.monotonic_ns`, the same in all processes."""

    PUBLISHED = 0
    """When it was published first."""
    ACKNOWLEDGED = 1
    """When the broker acknowledged it."""
    ANSWERED = 2
    """How many answers came."""
    HANDLED = 3
    """When its handler came to its end first."""
    COUNT = 4
    """How often its handler came to its end."""


class Board(Numbers):
    """The numbers of a scene: those of all by `Slot`, those of one message by `Column`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, (_HEADER + len(Column) * (CAPACITY + 1)) * WIDTH)
        self._lock = threading.Lock()

    def touch(self, columns: Iterable[Column]) -> None:
        """Have the pages of columns in this process's memory at once, so that its use of memory is not the board's."""
        for column in columns:
            start = _HEADER + column * (CAPACITY + 1)
            sum(self._numbers[start : start + CAPACITY : mmap.PAGESIZE // WIDTH])

    def __getitem__(self, slot: Slot) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: Slot, value: int) -> None:
        self._numbers[slot] = value

    def get(self, column: Column, number: int) -> int:
        """Return what is noted of a message; 0: nothing."""
        return self._numbers[_HEADER + column * (CAPACITY + 1) + number]

    def put(self, column: Column, number: int, value: int) -> None:
        """Note something of a message."""
        self._numbers[_HEADER + column * (CAPACITY + 1) + number] = value

    def column(self, column: Column, first: int, end: int) -> list[int]:
        """Return what is noted of the messages from `first` to before `end`."""
        start = _HEADER + column * (CAPACITY + 1)
        return self._numbers[start + first : start + end].tolist()

    def begun(self) -> None:
        """Note a call of a handler."""
        self[Slot.BEGUN] += 1

    def handled(self, number: int) -> None:
        """Note the end of a handler's call."""
        with self._lock:
            if not self.get(Column.HANDLED, number):
                self.put(Column.HANDLED, number, time.monotonic_ns())
            self.put(Column.COUNT, number, self.get(Column.COUNT, number) + 1)
            self[Slot.HANDLED] += 1
