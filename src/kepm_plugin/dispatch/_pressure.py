"""What the operator hears of, and what the session does about it, while handlers or the disk cannot keep up."""

import logging
from collections.abc import Callable

from ._ends import Trouble
from ._lane import Lane

log = logging.getLogger("kepm_plugin.dispatch")


class Troubles:
    """What degrades the plugin, by source: logged when it begins, reported when it changes and when it is over."""

    def __init__(self, report: Trouble) -> None:
        self._report = report
        self._reasons: dict[str, str] = {}

    def tell(self, source: str, reason: str | None) -> None:
        """Note what one source has to complain of; None: nothing any more."""
        if reason is None:
            if self._reasons.pop(source, None) is not None:
                self._report(source, None)
            return
        if source not in self._reasons:
            log.error("messages.trouble", extra={"reason": reason})
        if self._reasons.get(source) != reason:
            self._reasons[source] = reason
            self._report(source, reason)


class Pressure:
    """Without a journal: nothing more is read while a lane is full, until none is behind any more."""

    def __init__(self, pause: Callable[[bool], object], trouble: Trouble) -> None:
        self._pause, self._trouble = pause, trouble
        self._behind: set[Lane] = set()

    def __bool__(self) -> bool:
        return bool(self._behind)

    def grown(self, lane: Lane) -> None:
        """Look at a lane that has got a message which is not journalled."""
        if lane.full and lane not in self._behind:
            if not self._behind:
                self._pause(True)
            self._behind.add(lane)
            name = lane.route.spec.name
            self._trouble("overload", f"overloaded: {name} is behind, and there is no journal; nothing more is read")

    def shrunk(self, lane: Lane) -> None:
        """Look at a lane that has done some of its messages."""
        if lane in self._behind and lane.low:
            self._behind.remove(lane)
            if not self._behind:
                self._trouble("overload", None)
                self._pause(False)
