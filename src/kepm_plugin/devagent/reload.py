"""Restarts a plugin when its source changes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import watchfiles

from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import KepmError

SETTLE_MS = 200
"""Milliseconds without a further change until a burst of them (an editor, a checkout) counts as over."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched, and what then happens: `regenerate` the manifest, `restart` the plugin."""

    plugin_id: str
    paths: Sequence[Path]
    regenerate: Callable[[str], Awaitable[None]] | None
    restart: Callable[[str], Awaitable[None]]


async def watched(watch: Watch, over: anyio.Event, terminal: Terminal) -> None:
    """Watch until `over` is set; a failure to restart is said, and the next change tries again."""
    # The event, not a cancellation, ends the thread of the watch at once.
    async for changes in watchfiles.awatch(*watch.paths, step=SETTLE_MS, stop_event=over):
        names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
        terminal.agent(f"{names} changed: {watch.plugin_id} is restarted")
        try:
            if watch.regenerate is not None:
                await watch.regenerate(watch.plugin_id)
            await watch.restart(watch.plugin_id)
        except KepmError as exc:
            terminal.error(f"{watch.plugin_id} was not restarted: {exc}")
