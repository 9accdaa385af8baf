"""An author's coroutine, step by step under the guard; and the tasks that it starts."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from types import CoroutineType
from typing import Any, TypeVar

from ._guard import LIMIT, StallGuard
from ._telling import Telling

T = TypeVar("T")

_current: ContextVar[StallGuard | None] = ContextVar("kepm_plugin.stall", default=None)


class _Steps(Coroutine[Any, Any, T]):
    """Looks like the coroutine inside, whose steps the guard sees: awaited, or as a task."""

    __slots__ = ("_guard", "_inner", "_what")

    def __init__(self, guard: StallGuard, inner: Any, what: object) -> None:
        self._guard, self._inner, self._what = guard, inner, what

    def send(self, value: Any) -> Any:
        return self._guard.call(self._what, self._inner.send, value)

    def __next__(self) -> Any:
        # `StallGuard.call`, spelt out: this is the way of every message.
        guard = self._guard
        if guard.what is not None:
            return self._inner.send(None)
        since = monotonic()
        try:
            guard.since = since
            guard.what = self._what
            if guard.asleep:
                guard.rouse()
            return self._inner.send(None)
        finally:
            guard.what = None
            if monotonic() - since > guard.limit:
                guard.ended(self._what)

    def throw(self, *error: Any) -> Any:
        return self._guard.call(self._what, self._inner.throw, *error)

    def close(self) -> None:
        self._guard.call(self._what, self._inner.close)

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # pyright: ignore[reportReturnType]  awaiting takes no more than `__next__` and these

    def __getattr__(self, name: str) -> Any:
        # Its name, code and state, for what tells tasks apart, and for anyio, which asks whether one has begun.
        return getattr(self._inner, name)


def watched_call(function: Callable[..., T], *args: Any) -> T:
    """Call an author's function, as one step."""
    guard = _current.get()
    return function(*args) if guard is None else guard.call(function, function, *args)


def watched(function: Callable[..., Awaitable[T]], *args: Any, what: object = None) -> Awaitable[T]:
    """Return an author's function called, to be awaited; `what` is the code to name where that is another one."""
    guard = _current.get()
    if guard is None:
        return function(*args)
    awaitable: Any = function(*args)
    inner = awaitable if _is_coroutine(awaitable) else _awaiting(awaitable)
    return _Steps(guard, inner, what or function)


def _is_coroutine(value: object) -> bool:
    return isinstance(value, CoroutineType)


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable


@contextmanager
def stall_guard(say: Callable[[str], object], limit: float = LIMIT) -> Generator[StallGuard]:
    """Watch what is called by `watched` and `watched_call` in this context, until the end.

    On asyncio also the tasks that are started by such code. Threads are not watched: they do not block the loop, unless
    they hold the interpreter.

    Args:
        say: Writes lines to standard error; called in a thread.
        limit: Seconds that a step may take.
    """
    guard = StallGuard(Telling(say), limit)
    token = _current.set(guard)
    guard.start()
    try:
        with _tasks_of(guard):
            yield guard
    finally:
        guard.close()
        _current.reset(token)


@contextmanager
def _tasks_of(guard: StallGuard) -> Generator[None]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another kind of loop
        yield
        return
    before: Any = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if guard.what is not None and _is_coroutine(coroutine):
            coroutine = _Steps[Any](guard, coroutine, coroutine)
        if before is not None:
            return before(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(before)
