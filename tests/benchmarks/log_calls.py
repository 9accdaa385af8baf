"""Log calls, in small bursts with pauses: what a caller's thread needs for them."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .meter import tell

AT_ONCE: Final = 100
PAUSE: Final = 0.02
"""Seconds after a burst, in which ours sends what was logged; its pipe holds 5,000 records."""

BEGIN: Final = 0.2
"""Seconds after "begin", in which the harness looks at this process."""


async def call(log: Any, warm_up: int, count: int, sleep: Callable[[float], Awaitable[object]]) -> None:
    """Log, and tell what a call took; "begin" before those that count."""
    await _bursts(log, warm_up, sleep)
    tell("begin")
    await sleep(BEGIN)
    tell("called", caller=await _bursts(log, count, sleep) / count * 1e6)


async def _bursts(log: Any, count: int, sleep: Callable[[float], Awaitable[object]]) -> float:
    """Return the seconds of the processor that the calls took."""
    seconds = 0.0
    for start in range(0, count, AT_ONCE):
        since = time.thread_time()
        for number in range(start, min(count, start + AT_ONCE)):
            log.info("scan.finished", host="web-01.example", user="ada", files=number, seconds=0.25)
        seconds += time.thread_time() - since
        await sleep(PAUSE)
    return seconds
