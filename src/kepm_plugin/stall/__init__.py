"""The stall guard: an author's code that blocks the event loop is named while it does."""

from ._guard import LIMIT, StallGuard
from ._steps import stall_guard, watched, watched_call

__all__ = ["LIMIT", "StallGuard", "stall_guard", "watched", "watched_call"]
