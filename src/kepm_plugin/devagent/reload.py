"""Restarts a plugin when its source changes."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import watchfiles

from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import KepmError

SETTLE_MS = 200
"""Milliseconds without a further change until a burst of them (an editor, a checkout) counts as over."""


async def watched(
    plugin_id: str,
    paths: Sequence[Path],
    regenerate: Callable[[str], Awaitable[None]] | None,
    restart: Callable[[str], Awaitable[None]],
    terminal: Terminal,
) -> None:
    """Watch for ever; a failure to restart is said, and the next change tries again."""
    async for changes in watchfiles.awatch(*paths, step=SETTLE_MS, watch_filter=watchfiles.DefaultFilter()):
        names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
        terminal.agent(f"{names} changed: {plugin_id} is restarted")
        try:
            if regenerate is not None:
                await regenerate(plugin_id)
            await restart(plugin_id)
        except KepmError as exc:
            terminal.error(f"{plugin_id} was not restarted: {exc}")
