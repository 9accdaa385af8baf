"""`Plugin.settings`: the newest snapshot of the settings, and one and the same for the whole of a handler's call."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Call:
    """One call; `ended` is what tasks and threads share that were started in it and outlive it."""

    plugin: object
    ended: bool = False


_held: ContextVar[tuple[_Call, Any] | None] = ContextVar("kepm_plugin.settings", default=None)
"""The call that is going on, and its snapshot; tasks and threads of the call inherit it."""


class Snapshot:
    """The attribute. Whoever sets it inside a call, by editing the settings, sees what was set."""

    def __get__(self, plugin: Any, owner: type) -> Any:
        if plugin is None:
            return self
        held = _held_for(plugin)
        if held is not None:
            return held[1]
        state: dict[str, Any] = plugin.__dict__
        if "settings" not in state:
            raise AttributeError(f"{owner.__name__}.settings are there from `lifespan` on, not before")
        return state["settings"]

    def __set__(self, plugin: Any, settings: Any) -> None:
        plugin.__dict__["settings"] = settings
        held = _held_for(plugin)
        if held is not None:
            _held.set((held[0], settings))


def _held_for(plugin: object) -> tuple[_Call, Any] | None:
    held = _held.get()
    return held if held is not None and held[0].plugin is plugin and not held[0].ended else None


@contextmanager
def holding_settings(plugin: Any) -> Generator[None]:
    """Keep the plugin's settings as they are now for whatever runs inside; what outlives it sees the newest again."""
    state: dict[str, Any] = plugin.__dict__
    call = _Call(plugin)
    token = _held.set((call, state.get("settings")))
    try:
        yield
    finally:
        call.ended = True
        _held.reset(token)
