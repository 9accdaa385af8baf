"""The outbox as its users see it: what may come in, for how long they wait, and what is kept on disk."""

import time
from collections.abc import Callable
from typing import Literal

import anyio
import anyio.lowlevel

from ..errors import BadPayload, LinkLost, Overloaded, StoreError
from ..message import Publication
from ..store import Keep, Store
from ._disk import Disk
from ._entry import Entry, Sends
from ._pipeline import Pipeline

LIMIT = 10_000
"""Publications that may wait in memory."""

SIZE = 64 * 1024 * 1024
"""Bytes of payload that may wait in memory, all together; a single one must not be larger either."""

PUT_TIMEOUT = 30.0
"""Seconds for which `put` waits for room, for the disk, or for an acknowledgement, unless told otherwise."""

Wait = Literal["queued", "safe", "acknowledged"]
"""When `put` returns: it is taken, and on disk where it is kept there; it is on disk, or the broker has it; the broker
has it."""


_SMALLEST = Publication("", b"")


class Outbox:
    """The queue. Belongs to the event loop's thread. It lies in memory, until `open` has given it a file."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, limit: int = LIMIT, size: int = SIZE) -> None:
        self._clock, self._limit, self._size = clock, limit, size
        self._pipeline = Pipeline(size, self._moved)
        self._disk: Disk | None = None
        self._keeping = False
        self._room: anyio.Event | None = None
        self._empty: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._pipeline)

    @property
    def dropped(self) -> int:
        """Publications that were given up, since start."""
        return self._pipeline.dropped

    def bound(self, *, limit: int, size: int, max_age: float) -> None:
        """Have other bounds in memory from now on: publications, bytes, seconds. What is there already stays."""
        self._limit, self._size, self._pipeline.max_age = limit, size, max_age
        self._pipeline.largest = max(self._pipeline.largest, size)  # nothing on disk becomes too large by a bound
        if self._disk is not None:
            self._disk.limit, self._disk.size = limit, size
        self._moved()

    # --- the file -----------------------------------------------------------------------------------------------------

    def open(self, store: Store, trouble: Callable[[str | None], object], *, keeping: bool) -> None:
        """Send what a file keeps, before anything new, and forget it there when the broker has it.

        `run` must run meanwhile, and `close` be called at the end.

        Args:
            store: The file.
            trouble: Told why the file cannot be used, and None when it can again.
            keeping: Whether what is put with a `kind` is written to it, too; otherwise that is answers alone, by those
                who end the messages.
        """
        self._disk = self._pipeline.disk = Disk(store, trouble, self._written, limit=self._limit, size=self._size)
        self._keeping = keeping

    async def run(self) -> None:
        """Write and read the file, without end."""
        if self._disk is not None:
            await self._disk.run()

    def close(self) -> int:
        """Stop sending, write what can be written, and return how many publications end with this process."""
        self.detach()
        lost = self._pipeline.count
        if self._disk is not None:
            self._disk.write_all()
            lost += self._disk.unwritten
        self._keeping = False
        self._pipeline.dropped += lost
        return lost

    @property
    def keeps_records(self) -> bool:
        """Whether log records are kept while there is no link, and there is room for a batch of them."""
        disk = self._disk
        return self._keeping and disk is not None and not disk.failing and disk.has_room(Keep.RECORD, _SMALLEST)

    # --- what comes in ------------------------------------------------------------------------------------------------

    async def put(
        self,
        publication: Publication,
        *,
        wait: Wait = "queued",
        timeout: float | None = None,
        kind: Keep | None = None,
    ) -> None:
        """Take a publication.

        Args:
            publication: What to send.
            wait: When to return.
            timeout: The deadline, in seconds.
            kind: As what it is to be kept on disk, where publications are and its QoS is not 0.

        Raises:
            BadPayload: It is larger than the whole outbox.
            Overloaded: There was no room until the deadline.
            StoreError: It could not be written, nor did the broker have it, until the deadline. It stays queued.
            LinkLost: It was not acknowledged until the deadline; it stays queued and may still be sent.
        """
        self.check(publication)
        entry = Entry(publication, self._clock())
        if kind is not None and self._keeping and publication.qos:
            entry.kind = kind
        queued = wait == "queued" and self._has_room(entry)
        if queued:
            if entry.kind is None:
                self._pipeline.append(entry)
                return
            self._append(entry)
            if await self._is_written(entry):
                return
        done = anyio.Event()
        if wait == "acknowledged":
            entry.acknowledged = done.set
        else:
            entry.saved = done.set
        # asyncio cancels only who waits, and acknowledgements may come quicker than that.
        await anyio.lowlevel.checkpoint_if_cancelled()
        deadline = PUT_TIMEOUT if timeout is None else timeout
        with anyio.move_on_after(deadline):
            if not queued:
                while not self._has_room(entry):
                    self._room = self._room or anyio.Event()
                    await self._room.wait()
                self._append(entry)
                queued = True
            if wait != "queued" or entry.kind is not None:
                await done.wait()
        if not queued:
            count, size = self._held(entry)
            raise Overloaded(
                f"the outbox was full for {deadline:g} s, with {count} publications of {size} bytes; "
                "publish less, or wait for the link"
            )
        if done.is_set() or (wait == "queued" and entry.kind is None):
            return
        if wait == "queued":
            reason = "" if self._disk is None else self._disk.failing
            raise StoreError(
                f"{publication.topic!r} was not written to disk within {deadline:g} s; it stays queued in memory, "
                f"and is lost should the process end before it is sent ({reason or 'the disk is slow'})"
            )
        raise LinkLost(f"{publication.topic!r} was not acknowledged within {deadline:g} s; it stays queued")

    def put_soon(
        self,
        publication: Publication,
        acknowledged: Callable[[], None] | None = None,
        *,
        kind: Keep | None = None,
        first: bool = False,
    ) -> bool:
        """Take a publication without waiting; False, counted, where there is no room, or never could be.

        Args:
            publication: What to send.
            acknowledged: Called when the broker has it.
            kind: As what it is to be kept on disk, as in `put`.
            first: Send it before everything that waits.
        """
        entry = Entry(publication, self._clock(), None, acknowledged)
        if kind is not None and self._keeping and publication.qos:
            entry.kind = kind
        if len(publication.payload) > self._size:
            self._pipeline.give_up(entry)
            return False
        if not self._has_room(entry):
            self.lose()
            return False
        self._append(entry, first=first)
        return True

    def answer(
        self, publication: Publication, kept: int | None, acknowledged: Callable[[], None] | None = None
    ) -> None:
        """Take an answer; `kept` is its number in the file, where the commit that ended its message has written it.

        `acknowledged` is called when the broker has one that is in memory alone.
        """
        if kept is None or self._disk is None:
            self.put_soon(publication, acknowledged)
        else:
            self._disk.add(Entry(publication, 0.0, id=kept, safe=True))
            self._pipeline.pump()

    def lose(self) -> None:
        """Count one that could not be put."""
        self._pipeline.dropped += 1

    def check(self, publication: Publication) -> None:
        """Refuse what can never be sent; may be called from any thread.

        Raises:
            BadPayload: It is larger than the whole outbox.
        """
        if len(publication.payload) > self._size:
            raise BadPayload(
                f"the payload on {publication.topic!r} has {len(publication.payload)} bytes, and more than "
                f"{self._size} are never sent; publish it in parts, or where it can be fetched"
            )

    # --- what goes out ------------------------------------------------------------------------------------------------

    def attach(self, session: Sends, *, anew: bool = False) -> int:
        """Send over a session from now on; returns how many publications had waited too long and were dropped.

        With `anew` nothing has, and the time in memory begins now: the machine slept, and that is nobody's delay.
        """
        return self._pipeline.attach(session, self._clock(), anew=anew)

    def detach(self) -> None:
        """Stop sending; what was not acknowledged goes first over the next session."""
        self._pipeline.detach()

    async def flushed(self) -> None:
        """Return when everything has been sent and acknowledged."""
        while self:
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

    # --- small parts --------------------------------------------------------------------------------------------------

    def _has_room(self, entry: Entry) -> bool:
        if entry.kind is not None and self._disk is not None and self._goes_to_disk(entry):
            # One batch of records may go beyond: who brings them has asked before.
            return entry.kind is Keep.RECORD or self._disk.has_room(Keep.PUBLICATION, entry.publication)
        size = len(entry.publication.payload)
        return self._pipeline.count < self._limit and self._pipeline.size + size <= self._size

    def _goes_to_disk(self, entry: Entry) -> bool:
        # While there is a link a record is on its way at once, and writing each one down would wear out disks.
        return entry.kind is not Keep.RECORD or self._pipeline.session is None

    def _held(self, entry: Entry) -> tuple[int, int]:
        if self._disk is not None and entry.kind is not None:
            return self._disk.held(entry.kind)
        return self._pipeline.count, self._pipeline.size

    def _append(self, entry: Entry, *, first: bool = False) -> None:
        if entry.kind is not None and self._disk is not None and self._goes_to_disk(entry):
            self._disk.put(entry)
            if self._disk.failing:  # It may have to be sent from memory.
                self._pipeline.pump()
        else:
            self._pipeline.append(entry, first=first)

    async def _is_written(self, entry: Entry) -> bool:
        """Wait for the next commit, without a deadline: it is made in this turn of the event loop, or fails."""
        if self._disk is not None and not self._disk.failing:
            await self._disk.attempt.wait()
        return entry.safe

    def _written(self) -> None:
        self._pipeline.pump()
        self._moved()

    def _moved(self) -> None:
        """Wake who waits for room, or for the end."""
        if self._room is not None and self._pipeline.count < self._limit and self._pipeline.size < self._size:
            self._room.set()
            self._room = None
        if self._empty is not None and not self:
            self._empty.set()
            self._empty = None
