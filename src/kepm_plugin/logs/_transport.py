"""What carries records out, and how much of its own it may log."""

from functools import lru_cache
from typing import Final

TRANSPORT: Final = (
    "kepm_plugin.broker",
    "kepm_plugin.link",
    "kepm_plugin.outbox",
    "kepm_plugin.logs",
    "aiomqtt",
    "paho",
    "httpx",
    "httpcore",
    "asyncio",
)
"""Loggers, with those below them, that may log because a record is sent."""

_BURST: Final = 20  # records of the transport that pass at once
_REFILL: Final = 5.0  # seconds until one more may


@lru_cache(maxsize=1024)
def carries_records(logger: str) -> bool:
    """Tell whether a logger is one of `TRANSPORT`, or below one."""
    return any(logger == name or logger.startswith(f"{name}.") for name in TRANSPORT)


class Rate:
    """A bucket of `_BURST` tokens, one more each `_REFILL` seconds."""

    def __init__(self) -> None:
        self._tokens, self._last = float(_BURST), 0.0
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """Return None to suppress a record, else how many were suppressed since the last one."""
        self._tokens = min(_BURST, self._tokens + max(0.0, now - self._last) / _REFILL)
        self._last = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
