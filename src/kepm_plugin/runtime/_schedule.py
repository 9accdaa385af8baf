"""Runs what `every` and `background` declare."""

import logging
from random import Random

import anyio

from kepm_plugin.dispatch import Failure, guarded
from kepm_plugin.link import delays
from kepm_plugin.plugin import Background, Every, Plugin, in_seconds

from ._status import Status

log = logging.getLogger("kepm_plugin.runtime")


MAX_WAIT = 60.0
"""Seconds before a background method is started again, at most; after a longer run they begin at 1 again."""

PAUSED = 60.0
"""Seconds until a period that is none is looked at again."""


async def tick(plugin: Plugin, every: Every) -> None:
    """Call a method once per period, never twice at a time; of many missed ticks one is made up for."""
    random = Random()  # noqa: S311  jitter, no secret
    due = anyio.current_time()
    while True:
        period = every.seconds if every.setting is None else in_seconds(getattr(plugin.settings, every.setting))
        if not isinstance(period, int | float) or not period > 0:
            log.warning("tick.paused", extra={"method": every.name, "reason": f"the period is {period!r} seconds"})
            await anyio.sleep(PAUSED)
            due = anyio.current_time()
            continue
        due = max(due + period * random.uniform(0.95, 1.05), anyio.current_time())
        await anyio.sleep_until(due)
        outcome = await guarded(getattr(plugin, every.name))
        if isinstance(outcome, Failure):
            log.error("tick.failed", exc_info=outcome.error, extra={"method": every.name})


async def supervise(plugin: Plugin, background: Background, status: Status) -> None:
    """Run a method for as long as the plugin serves; start it again after 1 to 60 seconds where that is asked for."""
    waits, where = delays(1.0, MAX_WAIT), {"method": background.name}
    while True:
        started = anyio.current_time()
        outcome = await guarded(getattr(plugin, background.name))
        if isinstance(outcome, Failure):
            log.error("background.failed", exc_info=outcome.error, extra=where)
        if not background.restart:
            if isinstance(outcome, Failure):
                status.trouble(background.name, f"{background.name} failed and is not restarted")
            return
        if not isinstance(outcome, Failure):
            log.warning("background.ended", extra=where)
        if anyio.current_time() - started > MAX_WAIT:
            waits = delays(1.0, MAX_WAIT)
        await anyio.sleep(next(waits))
