"""What is told of stalls: on standard error while one lasts, in the log when it has ended, and not too often."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from ._place import Place, name_of

log = logging.getLogger("kepm_plugin.stall")

QUIET: Final = 60.0
"""Seconds after which the next stall of the same code is told again."""

WORSE: Final = 5.0
"""By so many times a stall must be longer than what was told of its code to be told before that."""


class _Known(Struct):
    """What was told of one piece of code."""

    until: float = 0.0
    worst: float = 0.0
    untold: int = 0


class _Found(Struct, frozen=True):
    since: float
    name: str
    stack: str
    told: bool


class Telling:
    """Tells of stalls: a handler that blocks for each message is told once a minute, or when it gets much worse.

    `found` is called by the thread that watches, `ended` on the loop. Nothing is written while the lock is held: a
    standard error that nobody reads blocks its writer.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._found: _Found | None = None

    def found(self, what: object, since: float, seconds: float, place: Place | None) -> None:
        """Take a stall that still lasts; what it is known by is when it began."""
        name, stack = name_of(what, place), str(place or "")
        with self._lock:
            before = self._found
            told_before = before is not None and before.since == since and before.told
            tell = self._admits(name, seconds)
            self._found = _Found(since, name, stack, tell or told_before)
        if tell:
            self._say(
                f"kepm-plugin: {name} has blocked the event loop for {seconds:.2g} s, and nothing else of the plugin "
                f"goes on meanwhile; await what takes long, or let a thread do it. This is where it is:\n{stack}"
            )

    def ended(self, what: object, since: float, seconds: float) -> None:
        """Take a stall that is over; here it is logged, as the log needs the loop."""
        with self._lock:
            found = self._found if self._found is not None and self._found.since == since else None
            self._found = None
            name = name_of(what) if found is None else found.name
            known = self._known.setdefault(name, _Known())
            if not (found is not None and found.told) and not self._admits(name, seconds):
                known.untold += 1
                return
            known.worst = max(known.worst, seconds)
            untold, known.untold = known.untold, 0
        fields: dict[str, object] = {"code": name, "seconds": round(seconds, 3)}
        if found is not None and found.stack:
            fields["stack"] = found.stack
        if untold:
            fields["untold"] = untold
        log.warning("loop.blocked", extra=fields)

    def _admits(self, name: str, seconds: float) -> bool:
        known, now = self._known.setdefault(name, _Known()), time.monotonic()
        if now < known.until and seconds < WORSE * known.worst:
            return False
        known.until, known.worst = now + QUIET, seconds
        return True
