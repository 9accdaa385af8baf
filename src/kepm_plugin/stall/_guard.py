"""The guard: marks each step of an author's code, and a thread that looks whether one of them does not end.

A step is what runs on the loop between two awaits that wait. To mark one takes two looks at the clock and no lock. The
thread looks ten times a second while steps come, and sleeps without a deadline when none has come for a tenth of one:
code that waits costs nothing.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ._held import SecondLine
from ._place import place_of
from ._telling import Telling

T = TypeVar("T")

LIMIT: Final = 0.1
"""Seconds that a step may take."""

HELD: Final = 10
"""Limits after which all stacks are told without the interpreter: something holds it, and holds up the thread too."""

REARM: Final = 4
"""Limits after which that is put off: not each time, since a thread is made for it."""

AGAIN: Final = 10
"""By so many times a stall must have grown to be looked at once more: where it was first may not be where it hangs."""


class StallGuard:
    """Watches the author's code on one event loop.

    Where the thread does not get the interpreter, the second line tells: after `HELD - REARM` to `HELD` limits.
    """

    def __init__(self, telling: Telling, limit: float = LIMIT) -> None:
        self.stalls = 0
        """Steps that took longer than the limit."""
        self.limit = limit
        self.what: object = None
        """The code whose step is running; a step within a step is a part of it."""
        self.since = 0.0
        """When the last step began. Set before `what`: the thread reads them the other way round."""
        self.asleep = False
        """Whether the thread must be roused to see a step."""
        self._telling = telling
        self._closed = False
        self._roused = threading.Event()
        self._loop_thread = threading.get_ident()
        self._second = SecondLine(HELD * limit)
        self._thread = threading.Thread(target=self._watch, name="kepm.stall", daemon=True)

    def bound(self, limit: float) -> None:
        """Let a step take so many seconds from now on."""
        self.limit, self._second.seconds = limit, HELD * limit

    def call(self, what: object, function: Callable[..., T], *args: Any) -> T:
        """Run one step; `what` is the code to name."""
        if self.what is not None:
            return function(*args)
        since = time.monotonic()
        try:
            self.since = since
            self.what = what
            if self.asleep:
                self.rouse()
            return function(*args)
        finally:
            self.what = None
            if time.monotonic() - since > self.limit:
                self.ended(what)

    def ended(self, what: object) -> None:
        """Take a step that was too long, on the loop, right after its end."""
        self.stalls += 1
        self._telling.ended(what, self.since, time.monotonic() - self.since)

    def rouse(self) -> None:
        """Have the thread watch. The second line is armed here: once a step holds the interpreter it is too late."""
        self.asleep = False
        self._second.put_off()
        self._roused.set()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed = True
        self._roused.set()
        # It may be writing where nobody reads.
        self._thread.join(1.0)
        self._second.close()

    def _watch(self) -> None:
        looked, due = 0.0, self.limit
        while not self._closed:
            what, since = self.what, self.since
            if what is None and since == looked:
                self._sleep()
                continue
            if since != looked:
                looked, due = since, self.limit
            now, rest = time.monotonic(), self.limit
            if what is not None:
                if now - since >= due:
                    self._look(what, since, now - since)
                    while due <= now - since:
                        due *= AGAIN
                rest = min(rest, max(since + due - now, 0.0))
            if now - self._second.since >= REARM * self.limit:
                self._second.put_off()
            self._roused.wait(rest)
            self._roused.clear()

    def _sleep(self) -> None:
        self.asleep = True
        if self.what is None and not self._closed:  # What began before that line does not rouse us.
            self._second.call_off()
            self._roused.wait()
        self.asleep = False
        self._roused.clear()

    def _look(self, what: object, since: float, seconds: float) -> None:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  a documented name, for debuggers
        place = place_of(frames.get(self._loop_thread))
        if self.what is not None and self.since == since:  # Else the place is that of something later.
            self._telling.found(what, since, seconds, place)
