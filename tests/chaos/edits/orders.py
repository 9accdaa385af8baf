"""Numbers that the harness and the plugin of the scene `settings` share: a file in the memory of both."""

import mmap
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Final

from tests.chaos.shared_numbers import Numbers

LOOK: Final = 0.005
"""Seconds between two looks at a number, of whose change nothing tells."""

STILL: Final = 20.0
"""Seconds after which it is no longer waited for transactions."""

Pace = Callable[[threading.Event, int], bool]
"""Returns when so many more transactions have begun, True when the event was set: what disturbs goes by the plugin's
pace, whatever the machine's."""


class Slot(IntEnum):
    """What the numbers are. The plugin writes the last three."""

    RUN = 0
    """Which start this is."""
    PAUSED = 1
    """The plugin is to begin no transaction."""
    UP = 2
    """The last run that came up."""
    NUMBER = 3
    """The last transaction that was begun, of any run."""
    OPEN = 4
    """Transactions that this run is in the middle of."""


class Orders(Numbers):
    """The numbers of a campaign, by `Slot`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mmap.PAGESIZE)

    def __getitem__(self, slot: Slot) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: Slot, value: int) -> None:
        self._numbers[slot] = value

    def pace(self, stopped: threading.Event, transactions: int) -> bool:
        """Return when so many more transactions have begun, or after a while; True when the event was set."""
        until, ends = self[Slot.NUMBER] + transactions, time.monotonic() + STILL
        while self[Slot.NUMBER] < until and time.monotonic() < ends:
            if stopped.wait(LOOK):
                return True
        return stopped.is_set()

    def next_number(self) -> int:
        """Return the number of a transaction that begins. For one thread."""
        self[Slot.NUMBER] += 1
        return self[Slot.NUMBER]
