"""The end of a message as it is written: done or buried and its answer kept in one commit, then acknowledged."""

from collections import deque
from collections.abc import Callable
from typing import Final

from kepm_plugin.errors import StoreError
from kepm_plugin.message import Publication

from ._lane import Work

Answer = Callable[[Publication, int | None], None]
"""Publishes an answer; the number is that of the kept copy on disk, None where there is none."""

Trouble = Callable[[str, str | None], object]
"""Is told what degrades the plugin, by source; None says that it is over."""

Write = Callable[..., list[int]]
"""Writes an end with the answers that it is given, in one commit; returns the numbers of the kept copies."""

UNWRITTEN: Final = 1_000
"""Ends of messages that wait in memory while the store cannot be written; what is beyond is handled by the next run."""

UNWRITTEN_BYTES: Final = 16 * 2**20
"""Bytes of the dead letters among them, likewise."""


class Ends:
    """Writes ends, again and again while the store cannot be written."""

    def __init__(self, answer: Answer, trouble: Trouble) -> None:
        self.answer, self._trouble = answer, trouble
        self._unwritten: deque[tuple[Write, Work, int]] = deque()
        self._bytes = 0

    def write(self, work: Work, publication: Publication | None, write: Write, size: int) -> None:
        """Write an end and send its answer; `size` is what it takes in memory while it cannot be written."""
        try:
            kept = write([publication] if publication else [])
        except StoreError as exc:
            # The caller hears of it now. If this process ends before it is written, the next run handles the message
            # again: at least once.
            if len(self._unwritten) < UNWRITTEN and self._bytes + size <= UNWRITTEN_BYTES:
                self._unwritten.append((write, work, size))
                self._bytes += size
            self._trouble("store", str(exc))
            if publication is not None:
                self.answer(publication, None)
            return
        if publication is not None:
            self.answer(publication, kept[0] if kept else None)
        self.acknowledge(work)
        if self._unwritten:
            self.write_again()
        else:
            self._trouble("store", None)

    def write_again(self) -> bool:
        """Write the ends that could not be written; tell whether none is left. Their answers went out already."""
        if not self._unwritten:
            return True
        while self._unwritten:
            write, work, size = self._unwritten[0]
            try:
                write()
            except StoreError as exc:
                self._trouble("store", str(exc))
                return False
            self._unwritten.popleft()
            self._bytes -= size
            self.acknowledge(work)
        self._trouble("store", None)
        return True

    def acknowledge(self, work: Work) -> None:
        """Acknowledge a message, where that comes after its handler, and let end what repeats it."""
        if work.acknowledge is not None:
            work.acknowledge([work.received.mid])
        if work.seen is not None:
            work.seen.ended()
