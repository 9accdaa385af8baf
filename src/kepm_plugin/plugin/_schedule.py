"""`every` and `background`: methods of a plugin that run without a message."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from inspect import iscoroutinefunction, signature
from math import isfinite
from typing import Any, Final, Never, TypeVar

from msgspec import Struct

from ..errors import PluginDefinitionError

MARK: Final = "__kepm_schedule__"

M = TypeVar("M", bound=Callable[[Any], Coroutine[Any, Any, None]])
"""A method without further arguments; the decorators return the very one."""


class Every(Struct, frozen=True):
    """A tick: its period in seconds, or the setting that holds it."""

    name: str
    seconds: float | None
    setting: str | None


class Background(Struct, frozen=True):
    """A supervised task that lives as long as the plugin serves."""

    name: str
    restart: bool


def every(
    *misplaced: Never, seconds: float = 0, minutes: float = 0, hours: float = 0, setting: str | None = None
) -> Callable[[M], M]:
    """Run a method again and again while the plugin serves.

    Calls never overlap, periods have a jitter of 5 %, and of many missed ticks one is made up for. `setting` names
    an attribute of the plugin's settings that holds the period, a number of seconds or a `timedelta`, read before each
    wait.

    Raises:
        PluginDefinitionError: No period or two of them, or a method that is not `async def f(self)`; where it stands
            above the method, whose name is in the message.
    """
    remedy = "give one period above 0, as in every(minutes=5) or every(setting='poll_seconds')"
    period = seconds + minutes * 60 + hours * 3600
    if misplaced and callable(misplaced[0]):  # '@every' without parentheses
        raise PluginDefinitionError(f"{_where(misplaced[0])}: every() takes its period by name; {remedy}")

    def mark(method: M) -> M:
        if misplaced:
            raise PluginDefinitionError(f"{_where(method)}: every() takes its period by name; {remedy}")
        if is_seconds(period) is (setting is not None):
            raise PluginDefinitionError(f"{_where(method)}: every() has a period of {period!r} seconds; {remedy}")
        _mark(method, Every(_name(method, "every"), period if setting is None else None, setting))
        return method

    return mark


def background(*misplaced: Never, restart: bool = False) -> Callable[[M], M]:
    """Run a method for as long as the plugin serves; it is cancelled at the drain.

    With `restart` it is started again when it ends or fails, after 1 to 60 seconds; without, a failure is logged and
    reported on `Status`, and the plugin serves on.

    Raises:
        PluginDefinitionError: A method that is not `async def f(self)`.
    """
    if misplaced:
        where = _where(misplaced[0])
        raise PluginDefinitionError(
            f"{where}: background() needs its parentheses; write '@background()' above the method"
        )

    def mark(method: M) -> M:
        _mark(method, Background(_name(method, "background"), restart))
        return method

    return mark


def is_seconds(value: object) -> bool:
    """Tell whether this is a time to wait or to take: a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def in_seconds(period: object) -> object:
    """Return a duration as seconds, anything else as it is."""
    return period.total_seconds() if isinstance(period, timedelta) else period


def scheduled(owner: type) -> list[Every | Background]:
    """Return what `every` and `background` marked in a class and its bases, the nearest definition of each name."""
    found: dict[str, Every | Background] = {}
    for base in reversed(owner.__mro__):
        for name, value in vars(base).items():
            found.pop(name, None)
            mark = getattr(value, "__dict__", {}).get(MARK)
            if isinstance(mark, Every | Background):
                found[name] = mark
    return list(found.values())


def _mark(method: Any, mark: Every | Background) -> None:
    if MARK in method.__dict__:
        raise PluginDefinitionError(f"{method.__qualname__}: every() and background() exclude each other; remove one")
    method.__dict__[MARK] = mark


def _where(method: Any) -> str:
    return getattr(method, "__qualname__", None) or repr(method)


def _name(method: Any, decorator: str) -> str:
    name = getattr(method, "__name__", "tick")
    if not iscoroutinefunction(method) or len(signature(method).parameters) != 1:
        raise PluginDefinitionError(
            f"{_where(method)}: {decorator}() is for a method 'async def {name}(self)'; write it so"
        )
    return name
