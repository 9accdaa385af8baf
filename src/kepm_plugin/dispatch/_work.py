"""One message on its way to its handler, and what has become of it."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from kepm_plugin.message import Received

from ._window import Seen


def size_of(received: Received) -> int:
    """Return about how many bytes a message takes, without what is the same for each."""
    return len(received.topic) + len(received.payload)


class Work(Struct, eq=False):
    """One message that waits for its handler."""

    received: Received
    size: int
    """As of `size_of`."""
    delivery: int = 1
    """Which delivery it is as far as runs of the process go; those of this run that are tried again do not count."""
    id: int | None = None
    """Its number in the journal, None where it is not there."""
    acknowledge: Callable[[Sequence[int]], None] | None = None
    """Where the acknowledgement comes after the handler: how to send it."""
    attempts: int = 0
    """How often its handler has failed."""
    due: float | None = None
    """Not to be tried before this time, in seconds since the epoch."""
    ticket: str | None = None
    """Given out for a later answer."""
    answered: bool = False
    """Its caller has the answer already, by the ticket."""
    deferred: bool = False
    """Its handler has ended and left the answer for later."""
    stored: bool = False
    """Its ticket is in the journal."""
    seen: Seen | None = None
    """Its entry in the window of identities, where it has an identity."""
    gone: bool = False
    """Given out; or dropped while it waited, and its place in a queue is still to be cleared."""
