"""One publication on its way out, and what the outbox needs of a session."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from ..message import Publication
from ..store import Keep


class Sends(Protocol):
    """What the outbox needs of a session."""

    @property
    def in_flight_maximum(self) -> int:
        """How many publications may be unacknowledged."""
        ...

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Send without blocking; call back when the broker has it. Raises LinkLost."""
        ...


class Entry(Struct, eq=False):
    """A publication that is not acknowledged yet."""

    publication: Publication
    since: float
    kind: Keep | None = None
    """As what it is to be kept on disk; None: it never is."""
    acknowledged: Callable[[], None] | None = None
    """Called when the broker has it."""
    saved: Callable[[], None] | None = None
    """Called when the broker has it, or it is on disk."""
    id: int | None = None
    """Its number on disk; None while it lies in memory alone."""
    after: int = 0
    """While it does: the number of the last one on disk that goes before it."""
    safe: bool = False
    """The broker has it, or it is on disk."""

    @property
    def size(self) -> int:
        """Bytes of its payload."""
        return len(self.publication.payload)
