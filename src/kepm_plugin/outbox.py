"""Publications on their way out: in order, pipelined up to the broker's limit, kept while the link is down.

In memory and bounded; what waits too long is dropped and counted. Answers that must survive a kill are kept in the
`store` by whoever puts them here, and forgotten there when the broker has acknowledged them.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import anyio
import anyio.lowlevel

from .errors import BadPayload, LinkLost, Overloaded
from .message import Publication

log = logging.getLogger("kepm_plugin.outbox")

LIMIT = 10_000
"""Publications that may wait."""

SIZE = 64 * 1024 * 1024
"""Bytes of payload that may wait, all together; a single one must not be larger either."""

MAX_AGE = 300.0
"""Seconds after which a publication that could not be sent is dropped."""

PUT_TIMEOUT = 30.0
"""Seconds for which `put` waits for room, or for an acknowledgement, unless told otherwise."""


class Sends(Protocol):
    """What the outbox needs of a session."""

    @property
    def in_flight_maximum(self) -> int:
        """How many publications may be unacknowledged."""
        ...

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Send without blocking; call back when the broker has it. Raises LinkLost."""
        ...


@dataclass(slots=True, eq=False)
class _Entry:
    publication: Publication
    since: float
    acknowledged: Callable[[], None] | None
    must: bool
    """Kept on disk as well, and so never dropped."""

    @property
    def size(self) -> int:
        return len(self.publication.payload)


class Outbox:
    """The queue. Belongs to the event loop's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, limit: int = LIMIT, size: int = SIZE) -> None:
        self._clock, self._limit, self._size = clock, limit, size
        self._bytes = 0
        self._waiting: deque[_Entry] = deque()
        self._in_flight: dict[_Entry, None] = {}
        self._session: Sends | None = None
        self._pumping = False
        self._room: anyio.Event | None = None
        self._empty: anyio.Event | None = None
        self.dropped = 0
        """Publications that were given up, since start."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    async def put(
        self,
        publication: Publication,
        *,
        wait: Literal["queued", "acknowledged"] = "queued",
        timeout: float | None = None,
    ) -> None:
        """Take a publication; with `acknowledged` return when the broker has it. `timeout` is in seconds.

        Raises:
            BadPayload: It is larger than the whole outbox.
            Overloaded: There was no room until the deadline.
            LinkLost: It was not acknowledged until the deadline; it stays queued and may still be sent.
        """
        self.check(publication)
        if wait == "queued" and self._has_room(publication):
            self._append(publication, None)
            return
        # asyncio cancels only who waits, and acknowledgements may come quicker than that.
        await anyio.lowlevel.checkpoint_if_cancelled()
        deadline = PUT_TIMEOUT if timeout is None else timeout
        acknowledged = anyio.Event()
        queued = False
        with anyio.move_on_after(deadline):
            while not self._has_room(publication):
                self._room = self._room or anyio.Event()
                await self._room.wait()
            self._append(publication, acknowledged.set)
            queued = True
            if wait == "acknowledged":
                await acknowledged.wait()
        if not queued:
            raise Overloaded(
                f"the outbox was full for {deadline:g} s, with {len(self)} publications of {self._bytes} bytes; "
                "publish less, or wait for the link"
            )
        if wait == "acknowledged" and not acknowledged.is_set():
            raise LinkLost(f"{publication.topic!r} was not acknowledged within {deadline:g} s; it stays queued")

    def put_soon(
        self, publication: Publication, acknowledged: Callable[[], None] | None = None, *, must: bool = False
    ) -> bool:
        """Take a publication without waiting; False, counted, where there is no room and it is no `must`.

        One that is larger than the whole outbox is given up, a `must` as well: it could never be sent.
        """
        if len(publication.payload) > self._size:
            self.dropped += 1
            log.error("publication.too_large", extra={"topic": publication.topic, "bytes": len(publication.payload)})
            if acknowledged is not None:
                acknowledged()
            return False
        if not must and not self._has_room(publication):
            self.dropped += 1
            return False
        self._append(publication, acknowledged, must=must)
        return True

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

    def _has_room(self, publication: Publication) -> bool:
        return len(self) < self._limit and self._bytes + len(publication.payload) <= self._size

    def _append(self, publication: Publication, acknowledged: Callable[[], None] | None, *, must: bool = False) -> None:
        self._waiting.append(_Entry(publication, self._clock(), acknowledged, must))
        self._bytes += len(publication.payload)
        self._pump()

    def attach(self, session: Sends, *, anew: bool = False) -> int:
        """Send over a session from now on; returns how many publications had waited too long and were dropped.

        With `anew` their time begins now: the machine slept, and that is nobody's delay.
        """
        oldest = -math.inf if anew else self._clock() - MAX_AGE
        kept = [entry for entry in self._waiting if entry.must or entry.since >= oldest]
        dropped = len(self._waiting) - len(kept)
        if anew:
            for entry in kept:
                entry.since = self._clock()
        self.dropped += dropped
        self._waiting = deque(kept)
        self._bytes = sum(entry.size for entry in (*self._waiting, *self._in_flight))
        self._session = session
        self._pump()
        self._settle()
        return dropped

    def detach(self) -> None:
        """Stop sending; what was not acknowledged goes first over the next session."""
        self._session = None
        self._waiting.extendleft(reversed(self._in_flight))
        self._in_flight = {}

    async def flushed(self) -> None:
        """Return when everything has been sent and acknowledged."""
        while self:
            self._empty = self._empty or anyio.Event()
            await self._empty.wait()

    def _pump(self) -> None:
        if self._pumping:  # A session may acknowledge at once, from inside `publish`.
            return
        self._pumping = True
        try:
            while self._session is not None and self._waiting:
                if len(self._in_flight) >= self._session.in_flight_maximum:
                    break
                entry = self._waiting.popleft()
                self._in_flight[entry] = None
                self._session.publish(entry.publication, partial(self._acknowledged, entry))
        except LinkLost as exc:
            log.debug("outbox.waiting", extra={"reason": str(exc)})
            self.detach()
        finally:
            self._pumping = False

    def _acknowledged(self, entry: _Entry) -> None:
        # A late acknowledgement of an earlier session: the publication is queued again, and sent again.
        if entry not in self._in_flight:
            return
        del self._in_flight[entry]
        self._bytes -= entry.size
        if entry.acknowledged is not None:
            entry.acknowledged()
        self._pump()
        self._settle()

    def _settle(self) -> None:
        """Wake who waits for room, or for the end."""
        if self._room is not None and len(self) < self._limit and self._bytes < self._size:
            self._room.set()
            self._room = None
        if self._empty is not None and not self:
            self._empty.set()
            self._empty = None
