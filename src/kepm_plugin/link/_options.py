"""How patient the link is."""

from collections.abc import Callable, Sequence

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
    """Upper bound of the first wait between two attempts; it doubles with each."""
    max_delay: float = 0.8
    """What it doubles up to."""
    share: float = 0.1
    """Of the time for which it has been tried, a wait may be so much, where that is more: in a long outage hundreds of
    plugins that each try twice a second would keep the processors busy."""
    longest_delay: float = 3.0
    """But no more than this."""
    slow: float = 1.0
    """An attempt that has led to nothing for so long met a broker that has too much to do, or does nothing."""
    slow_first_delay: float = 1.0
    """Upper bound of the wait after the first such attempt; it doubles with each."""
    slow_max_delay: float = 60.0
    """What it doubles up to."""
    tick: float = 5.0
    quiet: float = 10.0
    """Without anything received for so long, an echo is sent."""
    echo_timeout: float = 4.0
    """With what is quiet, and a reconnect, a link that has died in silence is replaced within 15 s."""
