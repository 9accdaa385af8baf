"""One message's call apart from the others that share its task: in a context of its own, and seen where it waits."""

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any


class Apart:
    """Awaits a coroutine in a context of its own: what it sets there is gone when it has ended.

    `waits` is called where it first waits for something, before the task does.
    """

    __slots__ = ("_inner", "_run", "_waits")

    def __init__(self, inner: Coroutine[Any, Any, None], waits: Callable[[], object] | None = None) -> None:
        self._inner, self._waits = inner, waits
        self._run = copy_context().run

    def __await__(self) -> Generator[Any, Any, None]:
        return self  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  to await takes these methods

    def __next__(self) -> Any:
        return self._waiting(self._run(self._inner.send, None))

    def send(self, value: Any) -> Any:
        """Go on with what was waited for."""
        return self._waiting(self._run(self._inner.send, value))

    def throw(self, *error: Any) -> Any:
        """Go on with an error, such as a cancellation."""
        return self._waiting(self._run(self._inner.throw, *error))

    def close(self) -> None:
        """End it where it is."""
        self._run(self._inner.close)

    def _waiting(self, what: Any) -> Any:
        waits, self._waits = self._waits, None
        if waits is not None:
            waits()
        return what
