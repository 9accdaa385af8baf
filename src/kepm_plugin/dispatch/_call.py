"""Calling an author's code, and turning whatever comes of it into a value."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec import Struct

from kepm_plugin.errors import Rejected
from kepm_plugin.eventloop import bare_task_group, cancel_requested
from kepm_plugin.stall import watched, watched_call

T = TypeVar("T")


class Failure(Struct, frozen=True):
    """An author's code raised; `Rejected` is a deliberate no, everything else a bug."""

    error: BaseException

    @property
    def rejected(self) -> bool:
        """Whether the author said no on purpose."""
        return isinstance(self.error, Rejected)


class TimedOut(Struct, frozen=True):
    """A handler did not end within its timeout, in seconds."""

    seconds: float


def attempted(function: Callable[..., T], *args: Any) -> T | Failure:
    """Call an author's function; its exception becomes a value, so that a plugin's bug does not stop its host.

    So does `SystemExit`: a library that ends a program must not end the handling of everything else.
    """
    try:
        return watched_call(function, *args)
    except (Exception, SystemExit) as exc:  # noqa: BLE001  whatever an author's code raises
        return Failure(exc)


async def guarded(function: Callable[..., Awaitable[T]], *args: Any, what: object = None) -> T | Failure:
    """Await an author's function as `attempted` calls one; `what` is the code to name where that is another one.

    Our cancellation passes. One that is the author's own, such as that of a task it awaited, is a bug like any other.
    """
    try:
        return await watched(function, *args, what=what)
    except (Exception, SystemExit) as exc:  # noqa: BLE001  as above
        return Failure(exc)
    except anyio.get_cancelled_exc_class() as exc:  # asked for here, not for each message
        return await _of_its_own(exc)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            raise
        own = group.subgroup(anyio.get_cancelled_exc_class()) is None
        return Failure(group) if own else await _of_its_own(group)


async def _of_its_own(error: BaseException) -> Failure:
    """Return what an author's own cancellation comes to; raise where it is us who are cancelled."""
    if cancel_requested():
        raise error
    await anyio.lowlevel.checkpoint_if_cancelled()
    failure = RuntimeError("it was cancelled from inside, by something it awaited and not by the framework")
    failure.__cause__ = error
    return Failure(failure)


Call = Callable[[Any, Callable[[object], None]], Awaitable[None]]
"""Handles one message and hands over what came of it: result, `Failure` or `TimedOut`.

Has been awaited when the slot is free again. That is later than the second argument was called where a thread outlives
its timeout: a thread cannot be stopped.
"""


def calling(handle: Callable[[Any], Any], *, is_async: bool, timeout: float | None) -> Call | None:
    """Return the way to call a handler's `handle`; None where it is simply awaited by `guarded`, without a timeout."""
    if not is_async:
        return _InThread(handle, timeout)
    return None if timeout is None else partial(_in_time, handle, timeout)


async def _in_time(handle: Callable[[Any], Any], timeout: float, message: Any, ended: Callable[[object], None]) -> None:
    outcome: object = TimedOut(timeout)
    with anyio.move_on_after(timeout):
        outcome = await guarded(handle, message)
    ended(outcome)


class _InThread:
    """A `handle` that is no coroutine."""

    def __init__(self, handle: Callable[[Any], Any], timeout: float | None) -> None:
        self._handle, self._timeout = handle, timeout
        # The lane's tasks count the slots; this keeps anyio's default of 40 threads out of the way.
        self._threads = anyio.CapacityLimiter(math.inf)

    async def __call__(self, message: Any, ended: Callable[[object], None]) -> None:
        finished = anyio.Event()
        outcome: object = None

        async def in_thread() -> None:
            nonlocal outcome
            # Our timeout does not cancel this, only the end of the drain does, and then nobody waits for the thread.
            outcome = await guarded(self._start, message, what=self._handle)
            finished.set()

        if self._timeout is None:
            await in_thread()
            ended(outcome)
            return
        async with bare_task_group() as tasks:
            tasks.start_soon(in_thread, name="kepm.thread")
            with anyio.move_on_after(self._timeout):
                await finished.wait()
            ended(outcome if finished.is_set() else TimedOut(self._timeout))

    async def _start(self, message: Any) -> Any:
        return await anyio.to_thread.run_sync(self._handle, message, abandon_on_cancel=True, limiter=self._threads)
