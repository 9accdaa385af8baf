"""Messages that are tried again later: one sleeper for all of them."""

import time
from heapq import heappop, heappush
from itertools import count
from typing import Final

import anyio

from ._lane import Lane
from ._work import Work

FIRST: Final = 1.0
"""Seconds until the first of a handler's `retries`; each later one waits twice as long."""

OFF: Final = 86_400.0
"""Seconds that a message is put off at a time, at most: the longest that `Retry` takes."""

LONGEST: Final = 60.0
"""Seconds that one of them waits at most."""


def backoff(attempts: int) -> float:
    """Return the seconds until a message is tried again whose handler has failed so often before."""
    return min(FIRST * 2.0 ** min(attempts, 30), LONGEST)


def remaining(work: Work) -> float:
    """Return the seconds until a message may be tried; a wall clock that was set back does not hold it up for ever."""
    return 0.0 if work.due is None else min(work.due - time.time(), OFF)


class Later:
    """What is postponed, by the time at which it goes on."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Lane, Work]] = []
        self._numbers = count()
        self._sooner = anyio.Event()

    def postpone(self, lane: Lane, work: Work, seconds: float) -> None:
        """Take a message back from its lane for so many seconds."""
        lane.postpone(work)
        entry = (anyio.current_time() + seconds, next(self._numbers), lane, work)
        heappush(self._waiting, entry)
        if self._waiting[0] is entry:
            self._sooner.set()

    async def run(self) -> None:
        """Give messages back to their lanes when it is time, without end."""
        while True:
            self._sooner = anyio.Event()
            while self._waiting and self._waiting[0][0] <= anyio.current_time():
                _, _, lane, work = heappop(self._waiting)
                work.due = None
                lane.resume(work)
            rest = self._waiting[0][0] - anyio.current_time() if self._waiting else None
            if rest is None:
                await self._sooner.wait()
            else:
                with anyio.move_on_after(rest):
                    await self._sooner.wait()
