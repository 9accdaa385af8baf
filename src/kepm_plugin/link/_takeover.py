"""Whether another client uses our client id: each of two then ends the other's session, for as long as both hurry.

MQTT 5 says so. In 3.1.1 the broker closes the connection without a word, as it does when it ends; but then it cannot be
reached the moment after.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from ._session import Ending

SOON: Final = 10.0
"""Seconds: a session that lived longer was not cut short."""

TIMES: Final[Mapping[Ending, int]] = {"closed": 8, "reset": 24}
"""Sessions in a row that ended in this way soon after CONNACK, and no attempt between that met no broker.

A broker that closes while it has something unread resets; but so does much else, for seconds.
"""

FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 60.0

HELD: Final = 2 * LONGEST_WAIT
"""Seconds that a session lives until the other client counts as gone: one that waits as we do would have come."""

Waits = Iterator[float]


class Takeovers:
    """Looks at how sessions end, one after the other."""

    def __init__(self, waits: Waits) -> None:
        """Take the upper bounds of the waits that follow takeovers; a new object begins them anew."""
        self._waits = waits
        self._row: dict[Ending, int] = dict.fromkeys(TIMES, 0)
        self.reason = ""
        """How it was recognised; empty while it is not."""

    def ended(self, ending: Ending, lived: float) -> float | None:
        """Take the end of a session; return the upper bound of the wait where another client has ended it."""
        if ending == "taken over":
            self.reason = "the broker says that another client has connected with this plugin's client id"
            return next(self._waits)
        if ending not in TIMES:
            return None
        self._row[ending] = self._row[ending] + 1 if lived < SOON else 0
        if self._row[ending] >= TIMES[ending] and not self.reason:
            self.reason = (
                f"the broker ended {self._row[ending]} connections, each within {SOON:g} s, and could be reached at "
                "once again: another client probably uses this plugin's client id"
            )
        return next(self._waits) if self.reason and lived < HELD else None

    def away(self) -> None:
        """Take an attempt that met no broker: it had ended, or was about to."""
        self._row = dict.fromkeys(TIMES, 0)
