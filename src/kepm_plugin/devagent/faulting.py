"""The faults that are in force: set, acting, over. Each says so in one line when it begins, and in one when it ends."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kepm_plugin.devagent.faults import Fault
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import UsageError

F = TypeVar("F", bound=Fault)


def _any(_: Fault) -> bool:
    return True


def _nothing() -> None:
    """Do nothing at the end of a fault that leaves nothing behind."""


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None
    undo: Callable[[], None]
    timer: asyncio.TimerHandle | None = None
    acted: int = 0


class Faults:
    """The faults in force, by number.

    Attributes:
        counts: How often each kind acted, since the agent's start.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.counts: Counter[str] = Counter()
        self._terminal = terminal
        self._armed: dict[int, _Armed] = {}
        self._number = 0

    def arm(self, fault: Fault, undo: Callable[[], None] = _nothing) -> int:
        """Put a fault in force and return its number; `undo` is called when it is over, however that comes.

        A fault that lasts, or is a moment, has acted with this.
        """
        self._number += 1
        number = self._number
        armed = self._armed[number] = _Armed(fault, fault.times, undo)
        self._terminal.warn(f"fault {number}: {fault}")
        if fault.seconds is not None:
            armed.timer = asyncio.get_running_loop().call_later(fault.seconds, self._end, number)
        if fault.extent != "either":
            self._act(number, armed)
        return number

    def any(self, kind: type[Fault]) -> bool:
        """Tell whether a fault of a kind concerns anybody."""
        return any(isinstance(armed.fault, kind) for armed in self._armed.values())

    def find(self, kind: type[F], plugin_id: str | None = None, fits: Callable[[F], bool] = _any) -> F | None:
        """Return a fault of a kind that concerns a plugin, the oldest one that fits, without having it act."""
        found = self._find(kind, plugin_id, fits)
        return None if found is None else found[1]

    def take(self, kind: type[F], plugin_id: str | None = None, fits: Callable[[F], bool] = _any) -> F | None:
        """Have a fault act, if one of that kind concerns the plugin and fits, and return it."""
        found = self._find(kind, plugin_id, fits)
        if found is None:
            return None
        number, fault = found
        self._act(number, self._armed[number])
        return fault

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all; one that is over already is no error.

        Raises:
            UsageError: There never was one of that number.
        """
        if number is not None and not 1 <= number <= self._number:
            raise UsageError(f"no fault {number}; the last one was {self._number}")
        for one in list(self._armed) if number is None else [number]:
            self._end(one)

    def active(self) -> list[dict[str, Any]]:
        """Return what is in force: number, kind, the chosen fields, `acted` and, where it counts, `left`."""
        return [
            {"number": number, "acted": armed.acted, "left": armed.left} | armed.fault.values()
            for number, armed in self._armed.items()
        ]

    def close(self) -> None:
        """End all."""
        self.clear()

    def _find(self, kind: type[F], plugin_id: str | None, fits: Callable[[F], bool]) -> tuple[int, F] | None:
        for number, armed in self._armed.items():
            fault = armed.fault
            if isinstance(fault, kind) and fault.plugin in (None, plugin_id) and fits(fault):
                return number, fault
        return None

    def _act(self, number: int, armed: _Armed) -> None:
        armed.acted += 1
        self.counts[armed.fault.kind] += 1
        if armed.left is not None:
            armed.left -= 1
            if armed.left == 0:
                self._end(number)

    def _end(self, number: int) -> None:
        armed = self._armed.pop(number, None)
        if armed is None:
            return
        if armed.timer is not None:
            armed.timer.cancel()
        armed.undo()
        self._terminal.agent(f"fault {number} is over: {armed.fault.kind}, acted {armed.acted} times")
