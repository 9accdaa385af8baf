"""The end of a message as it is written: done or buried and its answer kept in one commit, then acknowledged."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from kepm_plugin.errors import StoreError
from kepm_plugin.eventloop import soon_on_loop
from kepm_plugin.message import Publication
from kepm_plugin.store import Store

from ._work import Work

Answer = Callable[[Publication, int | None, Callable[[], None] | None], None]
"""Publishes an answer; the number is that of the kept copy on disk, None where there is none.

What is called back when the broker has it is given only where there is no copy.
"""

Trouble = Callable[[str, str | None], object]
"""Is told what degrades the plugin, by source; None says that it is over."""

Write = Callable[..., list[int]]
"""Writes an end with the answers that it is given, in one commit; returns the numbers of the kept copies."""

TOGETHER: Final = 50
"""Ends that are written in one commit, at most: so many messages are handled again where the process is killed before
it, and its part of each is small already."""

UNWRITTEN: Final = 1_000
"""Ends of messages that wait in memory while the store cannot be written; what is beyond is handled by the next run."""

UNWRITTEN_BYTES: Final = 16 * 2**20
"""Bytes of the dead letters and answers among them, likewise."""


class _Unwritten(Struct, eq=False):
    """An end that could not be written; its answer, until the broker has it."""

    write: Write
    work: Work
    answer: Publication | None
    size: int

    def told(self) -> None:
        self.answer = None


class Ends:
    """Writes ends, again and again while the store cannot be written."""

    def __init__(self, store: Store, answer: Answer, trouble: Trouble) -> None:
        self.answer, self._trouble = answer, trouble
        self._store, self._soon = store, soon_on_loop()
        self._together: list[tuple[int, Work]] = []
        """Messages that are done and of which nobody waits to hear, with their numbers."""
        self._unwritten: deque[_Unwritten] = deque()
        self._bytes = 0
        self._writing = False

    def write(self, work: Work, publication: Publication | None, write: Write, size: int) -> None:
        """Write an end and send its answer; `size` is what it takes in memory while it cannot be written."""
        try:
            kept = write([publication] if publication else [])
        except StoreError as exc:
            # The caller hears of it now. If this process ends before it is written, the next run handles the message
            # again: at least once.
            end = _Unwritten(write, work, publication, size + len(publication.payload if publication else b""))
            self._owe(end)
            self._trouble("store", str(exc))
            if publication is not None:
                self.answer(publication, None, end.told)
            return
        self._answer_kept(publication, kept)
        self.acknowledge(work)
        self._wrote()

    def write_soon(self, number: int, work: Work) -> None:
        """Remove a message from the journal together with others, when the loop has had a turn.

        A commit takes as long as handling a few messages. Were the process killed before it, the next run would handle
        these again, as it would the one whose handler has not ended.
        """
        if not self._together:
            self._soon(self.write_together)
        self._together.append((number, work))
        if len(self._together) >= TOGETHER:
            self.write_together()

    def write_together(self) -> None:
        """Write now what was to be written soon; with it ends what repeats a message of these."""
        while self._together:
            together, self._together = self._together, []
            try:
                self._store.finish_all([number for number, _ in together])
            except StoreError as exc:
                for number, work in together:
                    self._owe(_Unwritten(partial(self._store.finish, number), work, None, 0))
                self._trouble("store", str(exc))
                continue
            for _, work in together:
                self.acknowledge(work)
            self._wrote()

    def _owe(self, end: _Unwritten) -> None:
        if len(self._unwritten) < UNWRITTEN and self._bytes + end.size <= UNWRITTEN_BYTES:
            self._unwritten.append(end)
            self._bytes += end.size

    def _wrote(self) -> None:
        if not self._unwritten:
            self._trouble("store", None)
        elif not self._writing:  # else what repeats a message would be ended inside the end of that one, and so on
            self.write_again()

    def write_again(self) -> bool:
        """Write the ends that could not be written; tell whether none is left.

        An answer that the broker does not have by then is kept after all, and sent once more: the one that went out is
        in memory alone.
        """
        if not self._unwritten:
            return True
        self._writing = True
        try:
            return self._write_all()
        finally:
            self._writing = False

    def _write_all(self) -> bool:
        while self._unwritten:
            end = self._unwritten[0]
            publication = end.answer
            try:
                kept = end.write([publication] if publication else [])
            except StoreError as exc:
                self._trouble("store", str(exc))
                return False
            self._unwritten.popleft()
            self._bytes -= end.size
            self._answer_kept(publication, kept)
            self.acknowledge(end.work)
        self._trouble("store", None)
        return True

    def _answer_kept(self, publication: Publication | None, kept: list[int]) -> None:
        if publication is not None:
            self.answer(publication, kept[0] if kept else None, None)

    def acknowledge(self, work: Work) -> None:
        """Acknowledge a message, where that comes after its handler, and let end what repeats it."""
        if work.acknowledge is not None:
            work.acknowledge([work.received.mid])
        if work.seen is not None:
            (work.seen.stored if work.stored else work.seen.end)()
