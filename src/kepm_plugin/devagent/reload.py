"""Restarts a plugin when its source changes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import watchfiles

from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import KepmError

SETTLE_MS = 200
"""Milliseconds without a further change until a burst of them (an editor, a checkout) counts as over."""

SOURCES: Final = (".py", ".pyi")
"""What a plugin's process has read: its Python. Data files it reads by itself, when it likes."""

_NOT_OURS: Final = frozenset({"venv", "site-packages", "__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched, and what then happens: `regenerate` the manifest, `restart` the plugin."""

    plugin_id: str
    paths: Sequence[Path]
    regenerate: Callable[[str], Awaitable[None]] | None
    restart: Callable[[str], Awaitable[None]]


def is_source(path: Path, watched: Sequence[Path]) -> bool:
    """Tell whether a changed file below what is watched is Python source; installed and hidden files are not."""
    below = next((path.relative_to(each).parts for each in watched if path.is_relative_to(each)), ())
    return path.suffix in SOURCES and not any(part.startswith(".") or part in _NOT_OURS for part in below)


async def watched(watch: Watch, over: anyio.Event, terminal: Terminal) -> None:
    """Watch until `over` is set; a failure to restart is said, and the next change tries again."""

    def matters(_: watchfiles.Change, path: str) -> bool:
        return is_source(Path(path), watch.paths)

    # The event, not a cancellation, ends the thread of the watch at once.
    async for changes in watchfiles.awatch(*watch.paths, watch_filter=matters, step=SETTLE_MS, stop_event=over):
        names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
        try:
            if watch.regenerate is not None:
                await watch.regenerate(watch.plugin_id)
            terminal.agent(f"{names} changed: {watch.plugin_id} is restarted")
            await watch.restart(watch.plugin_id)
        except KepmError as exc:
            terminal.error(f"{names} changed: {watch.plugin_id} was not restarted: {exc}")
