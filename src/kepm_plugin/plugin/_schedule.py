"""`every` and `background`: methods of a plugin that run without a message."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction, signature
from typing import Any, Final, TypeVar

from ..errors import PluginDefinitionError

MARK: Final = "__kepm_schedule__"

S = TypeVar("S")
Method = Callable[[S], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Every:
    """A tick: its period in seconds, or the setting that holds it."""

    name: str
    seconds: float | None
    setting: str | None


@dataclass(frozen=True, slots=True)
class Background:
    """A supervised task that lives as long as the plugin serves."""

    name: str
    restart: bool


def every(
    *, seconds: float = 0, minutes: float = 0, hours: float = 0, setting: str | None = None
) -> Callable[[Method[S]], Method[S]]:
    """Run a method again and again while the plugin serves.

    Calls never overlap, periods have a jitter of 5 %, and of many missed ticks one is made up for. `setting` names
    an attribute of the plugin's settings that holds the period in seconds, read before each wait.

    Raises:
        PluginDefinitionError: No period or two of them, or a method that is not `async def f(self)`.
    """
    period = seconds + minutes * 60 + hours * 3600
    if (setting is None) == (period == 0) or period < 0:
        raise PluginDefinitionError(
            "every(): give one period above 0, as in every(minutes=5) or every(setting='poll_seconds')"
        )

    def mark(method: Method[S]) -> Method[S]:
        _mark(method, Every(_name(method, "every"), period if setting is None else None, setting))
        return method

    return mark


def background(*, restart: bool = False) -> Callable[[Method[S]], Method[S]]:
    """Run a method for as long as the plugin serves; it is cancelled at the drain.

    With `restart` it is started again when it ends or fails, after 1 to 60 seconds; without, a failure is logged and
    reported on `Status`, and the plugin serves on.

    Raises:
        PluginDefinitionError: A method that is not `async def f(self)`.
    """

    def mark(method: Method[S]) -> Method[S]:
        _mark(method, Background(_name(method, "background"), restart))
        return method

    return mark


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
    method.__dict__[MARK] = mark


def _name(method: Any, decorator: str) -> str:
    name = getattr(method, "__qualname__", repr(method))
    if not iscoroutinefunction(method) or len(signature(method).parameters) != 1:
        raise PluginDefinitionError(f"{name}: {decorator}() is for a method 'async def {method.__name__}(self)'")
    return str(method.__name__)
