"""What the link went through: every transition counted, and said in the log where it is news.

Attempts follow each other by fractions of a second, for minutes. So what has been said is not said again until a
session has held: the first failure is, and each further reason; the rest is counted.
"""

import logging
from typing import Final, Literal, get_args

from msgspec import Struct

Transition = Literal[
    "connecting",
    "failed",
    "refused",
    "fallenBack",
    "certificateChanged",
    "addressChanged",
    "up",
    "echoMissed",
    "takenOver",
    "lost",
    "resumed",
    "budgetSpent",
]

REASONS: Final = 10
"""Reasons of one transition that are said before a session holds; they may hold whatever a broker says."""


class _Event(Struct, frozen=True):
    name: str
    level: int


_EVENTS: Final[dict[Transition, _Event]] = {
    "connecting": _Event("link.connecting", logging.INFO),
    "failed": _Event("link.failed", logging.WARNING),
    "refused": _Event("link.refused", logging.WARNING),
    "fallenBack": _Event("link.fallen_back", logging.INFO),
    "certificateChanged": _Event("link.certificate_changed", logging.INFO),
    "addressChanged": _Event("link.address_changed", logging.INFO),
    "up": _Event("link.up", logging.INFO),
    "echoMissed": _Event("link.echo_missed", logging.WARNING),
    "takenOver": _Event("link.taken_over", logging.WARNING),
    "lost": _Event("link.lost", logging.WARNING),
    "resumed": _Event("link.resumed", logging.INFO),
    "budgetSpent": _Event("link.budget_spent", logging.ERROR),
}


class History:
    """Counts and says transitions."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        """Prepare; what `logger` is given may go out over the link, as it is little whatever the link does."""
        self._log = logger or logging.getLogger("kepm_plugin.link")
        self._counts: dict[Transition, int] = dict.fromkeys(get_args(Transition), 0)
        self._said: dict[Transition, set[str]] = {}
        self._unsaid = 0

    def note(self, transition: Transition, reason: str = "", **details: object) -> None:
        """Count a transition, and say it unless it has been said for the same reason since a session held."""
        self._counts[transition] += 1
        said = self._said.setdefault(transition, set())
        if reason in said or len(said) >= REASONS:
            self._unsaid += 1
            return
        said.add(reason)
        if transition == "lost":
            self._said.pop("up", None)  # who reads of the loss wants to read of its end
        event = _EVENTS[transition]
        self._log.log(event.level, event.name, extra=({"reason": reason} if reason else {}) | details)

    def held(self) -> None:
        """A session has held: whatever comes next is news."""
        if self._unsaid:
            self._log.info("link.held", extra={"unsaid": self._unsaid})
        self._said.clear()
        self._unsaid = 0

    def report(self) -> dict[str, int]:
        """Return how often each transition was made."""
        return {str(name): count for name, count in self._counts.items()}
