"""The running event loop, as seen from where there is no task: from its callbacks, and from other threads.

What reads the network calls us back outside of any task, where anyio cannot tell which loop runs.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel


def loop_clock() -> Callable[[], float]:
    """Return the running loop's clock, in seconds; it may be read anywhere on the loop's thread."""
    native: Any = anyio.lowlevel.current_token().native_token
    clock: Callable[[], float] = getattr(native, "time", anyio.current_time)
    return clock


def run_soon_on_loop() -> Callable[[Callable[[], object]], None]:
    """Return a function, for any thread, that has another one called on the running loop; nothing once it has ended."""
    native: Any = anyio.lowlevel.current_token().native_token
    call: Any = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def run_soon(function: Callable[[], object]) -> None:
        with suppress(RuntimeError):
            call(function)

    return run_soon
