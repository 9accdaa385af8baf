"""The running event loop: its clock and a way in from where there is no task, and groups whose error is one.

What reads the network calls us back outside of any task, where anyio cannot tell which loop runs.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup


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


def soon_on_loop() -> Callable[[Callable[[], object]], object]:
    """Return a function, for the running loop's own thread, that has another one called in the loop's next turn."""
    native: Any = anyio.lowlevel.current_token().native_token
    soon: Callable[[Callable[[], object]], object] = getattr(native, "call_soon", None) or native.run_sync_soon
    return soon


def shared_wait(now: float, most: float) -> float:
    """Return a wait of at most `most` seconds that ends when others' waits of that length end; `now` is the loop's.

    Who looks at something every few seconds, and does not mind to look a little earlier the first time, wakes the
    process up together with the others.
    """
    rest = most - now % most
    return rest if rest > most / 1000 else most  # a timer may be early by the clock's resolution


def cancel_requested() -> bool:
    """Tell whether somebody cancelled the running task itself, as asyncio does with all that is left when it ends.

    What anyio cancels shows at its checkpoints; under trio nothing else can.
    """
    native: Any = anyio.lowlevel.current_token().native_token
    if not isinstance(native, asyncio.AbstractEventLoop):
        return False
    task = asyncio.current_task(native)
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def bare_task_group() -> AsyncGenerator[TaskGroup]:
    """A task group of which a single error comes out as itself, for edges where errors are told to people."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except ExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
