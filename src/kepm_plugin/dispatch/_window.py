"""The window of identities: a message that says it is one of the last ones is not handled again."""

from collections.abc import Callable
from hashlib import sha256
from itertools import islice
from typing import Final

from msgspec import Struct, field

from kepm_plugin.message import Received

WINDOW: Final = 600.0
"""Seconds for which an identity is remembered: longer than a link is restored, so that what it repeats is known."""

ENTRIES: Final = 10_000
"""Identities that are remembered, at most."""

ANSWER_BYTES: Final = 4 * 2**20
"""Bytes of the answers that are remembered with them, so that whoever asks again is answered again."""

PRUNED: Final = 100
"""Entries that are looked at for each new one."""

Key = tuple[str, bytes]
"""Filter of the handler, and identity: as it is where it is short, else its digest."""

LONG: Final = 64
"""Bytes of an identity above which its digest stands for it."""


def key(topic_filter: str, identity: bytes) -> Key:
    """Return the key of an identity to one handler."""
    return topic_filter, identity if len(identity) <= LONG else sha256(identity).digest()


class Seen(Struct, eq=False):
    """One remembered message."""

    key: Key
    content: int
    caller: int
    """Who waits for the answer, as a hash: whoever has the same knows the same answer for its own."""
    at: float
    answer: bytes | None = None
    """What its caller was told; None while it is handled, and where nobody asked."""
    safe: bool = False
    """It is on disk, or has ended: were the process killed, what repeats it would not be missed."""
    ended: bool = False
    """Nothing more comes of it."""
    behind: list[tuple[bool, Callable[[], None]]] = field(default_factory=list[tuple[bool, Callable[[], None]]])
    """How to end what repeats it and has to wait: for its end, or (False) only until it is safe."""

    def end(self) -> None:
        """End what repeats a message that has ended."""
        self.safe = self.ended = True
        behind, self.behind = self.behind, []
        for _, end in behind:
            end()

    def stored(self) -> None:
        """End what repeats a message that is on disk now, and need not wait for its answer."""
        self.safe = True
        behind, self.behind = self.behind, [one for one in self.behind if one[0]]
        for waits, end in behind:
            if not waits:
                end()


class Window:
    """What was handled lately, by explicit identity.

    A correlation id that comes with another content is no duplicate: somebody counts from 1 again. The other way round,
    equal content without an identity never is one: two equal commands are two commands.

    Attributes:
        seconds: For how long an identity is remembered; fewer count from the next message on.
        entries: How many are, at most; fewer are reached by and by.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds, self.entries = WINDOW, ENTRIES
        self._entries: dict[Key, Seen] = {}
        self._bytes = 0

    def enter(self, key: Key, received: Received, caller: int, *, equal: bool) -> tuple[Seen, bool]:
        """Return the entry of a message, and whether it is that of an earlier one, which this one repeats.

        Args:
            key: Its identity.
            received: The message.
            caller: Who waits for its answer, as in `Seen`.
            equal: Whether one that repeats it has to be equal as well.
        """
        now = self._clock()
        self._prune(now - self.seconds)
        content = hash((received.topic, received.payload)) if equal else 0
        seen = self._entries.get(key)
        if seen is not None and seen.content == content:
            return seen, True
        self.forget(seen)
        seen = self._entries[key] = Seen(key, content, caller, now)
        return seen, False

    def find(self, key: Key | None) -> Seen | None:
        """Return the entry of an identity."""
        return None if key is None else self._entries.get(key)

    def answered(self, seen: Seen | None, answer: bytes) -> None:
        """Remember what the caller was told."""
        if seen is not None and self._entries.get(seen.key) is seen and seen.answer is None:
            seen.answer = answer
            self._bytes += len(answer)

    def forget(self, seen: Seen | None) -> None:
        """Forget a message that was not handled after all: who sends it again wants it handled."""
        if seen is not None and self._entries.get(seen.key) is seen:
            del self._entries[seen.key]
            self._bytes -= len(seen.answer or b"")

    def _prune(self, oldest: float) -> None:
        for first in list(islice(self._entries.values(), PRUNED)):
            if first.at >= oldest and len(self._entries) < self.entries and self._bytes <= ANSWER_BYTES:
                return
            if not first.behind:  # others wait for its end; they are bounded, too
                self.forget(first)
