"""How patient the link is."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct


class LinkOptions(Struct, frozen=True, kw_only=True):
    """How patient to be. Times are in seconds."""

    filters: Callable[[], Sequence[str]]
    """What to subscribe, asked at each connect; a plugin that only publishes has nothing."""
    qos: int = 1
    echo_topic: str | None = None
    budget: float = 600.0
    """For how long a lost link is restored."""
    attempt: float = 20.0
    """What one attempt takes at most, with two versions of MQTT and the subscribing; more is a sleep of the machine."""
    first_delay: float = 0.05
    max_delay: float = 0.8
    tick: float = 5.0
    quiet: float = 10.0
    """Without anything received for so long, an echo is sent."""
    echo_timeout: float = 4.0
    """With what is quiet, and a reconnect, a link that has died in silence is replaced within 15 s."""


def delays(first: float, limit: float) -> Iterator[float]:
    """Upper bounds of the waits before each attempt: doubling from `first`, never above `limit`."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, limit)
