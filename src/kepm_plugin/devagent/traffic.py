"""The record of what went through the gate: bounded, and something to wait on."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

KEPT: Final = 10_000
KEPT_BYTES: Final = 32 * 1024 * 1024
"""Entries, and bytes of payloads, that are remembered."""

PAYLOAD_KEPT: Final = 64 * 1024

Direction = Literal["from plugin", "to plugin"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One packet of interest at the gate: a publication, a subscription, or a connection.

    Attributes:
        kind: `PUBLISH`, `SUBSCRIBE`, `SUBACK` (the engine granted it), `UNSUBSCRIBE`, `CONNECT`,
            `DISCONNECT` or `WILL`.
        topic: Topic or filter; of a connection, the client id.
        payload: At most the first 64 KiB.
        allowed: False where the gate held it back, silently for the client.
        at: Seconds since the epoch.
    """

    plugin_id: str
    direction: Direction
    kind: str
    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    allowed: bool = True
    note: str = ""
    at: float = field(default_factory=time.time)


class Ledger(Generic[T]):
    """The last entries of a kind, in order, and a way to wait for the next that fits."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[T] = deque(maxlen=kept)
        self._waiting: dict[asyncio.Future[T], Callable[[T], bool]] = {}
        self.total = 0

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: T) -> None:
        """Append an entry; the oldest one goes when the ledger is full."""
        self._entries.append(entry)
        self.total += 1
        for future, fits in list(self._waiting.items()):
            if not future.done() and fits(entry):
                future.set_result(entry)

    async def wait_for(self, fits: Callable[[T], bool], *, timeout: float = 5.0, since: int = 0) -> T:
        """Return the first entry that fits, among those kept and those to come.

        Args:
            fits: The condition; it must not raise.
            timeout: Seconds.
            since: Only entries that came after this many in total (`total` at an earlier time).

        Raises:
            TimeoutError: None came in time.
        """
        skip = max(0, since - (self.total - len(self._entries)))
        for entry in list(self._entries)[skip:]:
            if fits(entry):
                return entry
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting[future] = fits
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            del self._waiting[future]


class Traffic(Ledger[Crossing]):
    """What went through the gate, and how often it said no."""

    def __init__(self, kept: int = KEPT) -> None:
        super().__init__(kept)
        self.denied: Counter[str] = Counter()
        self._bytes = 0

    def add(self, entry: Crossing) -> None:
        """Append an entry and count it where it was denied, by plugin id."""
        if not entry.allowed:
            self.denied[entry.plugin_id] += 1
        self._bytes += len(entry.payload)
        while self._entries and (self._bytes > KEPT_BYTES or len(self._entries) == self._entries.maxlen):
            self._bytes -= len(self._entries.popleft().payload)
        super().add(entry)
