"""`Plugin.settings`: the newest snapshot of the settings, and one and the same for the whole of a handler's call."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_held: ContextVar[tuple[object, Any] | None] = ContextVar("kepm_plugin.settings", default=None)
"""The plugin whose handler is being called, and its snapshot; tasks and threads of the call inherit it."""


class Snapshot:
    """The attribute. Whoever sets it inside a call, by editing the settings, sees what was set."""

    def __get__(self, plugin: Any, owner: type) -> Any:
        if plugin is None:
            return self
        held = _held.get()
        if held is not None and held[0] is plugin:
            return held[1]
        state: dict[str, Any] = plugin.__dict__
        if "settings" not in state:
            raise AttributeError(f"{owner.__name__}.settings are there from `lifespan` on, not before")
        return state["settings"]

    def __set__(self, plugin: Any, settings: Any) -> None:
        plugin.__dict__["settings"] = settings
        held = _held.get()
        if held is not None and held[0] is plugin:
            _held.set((plugin, settings))


@contextmanager
def holding_settings(plugin: Any) -> Generator[None]:
    """Keep the plugin's settings as they are now for whatever runs inside."""
    state: dict[str, Any] = plugin.__dict__
    token = _held.set((plugin, state.get("settings")))
    try:
        yield
    finally:
        _held.reset(token)
