"""What became of the messages since start."""

from msgspec import Struct
from msgspec.structs import asdict


class Counters(Struct):
    """Each message is counted once where it ended; `retried` and `refused` ones come again."""

    handled: int = 0
    rejected: int = 0
    failed: int = 0
    timed_out: int = 0
    retried: int = 0
    """Put off, to be tried again."""
    duplicates: int = 0
    """Not handled, as their identity was handled before, or is being handled."""
    crashed: int = 0
    """Given up since the process ended again and again while their handlers had them."""
    too_old: int = 0
    """Given up since they waited for longer than the journal keeps them."""
    mismatched: int = 0
    unrouted: int = 0
    dropped: int = 0
    """Given up at QoS 0, or in a `subscribe()`, because whoever takes them was behind or about to end."""
    refused: int = 0
    """Left to the broker, without an acknowledgement: neither journal nor memory could take them."""

    def report(self) -> dict[str, int]:
        """Return the counters by name, in JSON's casing."""
        return {_camel(name): value for name, value in asdict(self).items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
