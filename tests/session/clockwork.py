"""An event loop that a test moves by hand: it never waits, and its time passes only as far as it is told."""

import asyncio
import math
import selectors
import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""What the wall clock says when the loop's clock says 0."""


class Clockwork(asyncio.SelectorEventLoop):
    """The loop. While it runs, the wall clock and the monotonic one are its own, so that every run is the same."""

    def __init__(self, now: float) -> None:
        self.now = self.horizon = now
        self.turns = 0
        """How often it has begun anew to do what is ready."""
        super().__init__(_Idle(self))

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self.now

    def wall(self) -> float:
        """Return the seconds since the epoch."""
        return EPOCH + self.now

    def run(self, seconds: float = 0.0) -> None:
        """Run until so much time has passed and nothing is left to do; `stop` ends it early."""
        self.horizon = self.now + seconds
        self._run()

    def step(self) -> None:
        """Run what is ready, and what that makes ready not."""
        self.call_soon(self.stop)
        self.horizon = self.now
        self._run()

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something to its end, however much time that takes.

        Raises:
            AssertionError: It waits for what never comes.
        """
        self.horizon = math.inf
        with self._own_clocks():
            return self.run_until_complete(coroutine)

    def _run(self) -> None:
        with self._own_clocks():
            self.run_forever()

    @contextmanager
    def _own_clocks(self) -> Generator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", self.wall)
            patch.setattr(time, "monotonic", self.time)
            yield


class _Idle(selectors.SelectSelector):
    """Asked to wait, it lets the time pass instead."""

    def __init__(self, loop: Clockwork) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        loop.turns += 1 if timeout == 0 else 2  # had anything been ready, it would have been done before
        if timeout is None:
            assert loop.horizon < math.inf, "it waits for what never comes"
            loop.now = loop.horizon
            loop.stop()
        elif timeout > 0:
            if loop.now + timeout > loop.horizon:
                loop.now = loop.horizon
                loop.stop()
            else:
                loop.now += timeout
        return []
