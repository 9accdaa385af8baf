"""`Plugin.settings`: the newest snapshot of the settings, and one and the same for the whole of a handler's call."""

from contextvars import ContextVar
from typing import Any

from msgspec import Struct


class _Call(Struct):
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


class holding_settings:  # noqa: N801  used like a function, and a class as it is entered for each message
    """Keep the plugin's settings as they are now for whatever runs inside; what outlives it sees the newest again."""

    __slots__ = ("_call", "_token")

    def __init__(self, plugin: Any) -> None:
        self._call = _Call(plugin)

    def __enter__(self) -> None:
        state: dict[str, Any] = vars(self._call.plugin)
        self._token = _held.set((self._call, state.get("settings")))

    def __exit__(self, *error: object) -> None:
        self._call.ended = True
        _held.reset(self._token)
