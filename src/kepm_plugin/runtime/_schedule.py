"""Runs what `every` and `background` declare."""

import logging
from random import Random

import anyio

from kepm_plugin.dispatch import Failure, guarded
from kepm_plugin.link import delays
from kepm_plugin.plugin import Background, Every, Plugin

from ._status import Status

log = logging.getLogger("kepm_plugin.runtime")


async def tick(plugin: Plugin, every: Every) -> None:
    """Call a method once per period, never twice at a time; of many missed ticks one is made up for."""
    random = Random()  # noqa: S311  jitter, no secret
    due = anyio.current_time()
    while True:
        period = every.seconds if every.setting is None else float(getattr(plugin.settings, every.setting))
        if period is None or not period > 0:
            log.error("tick.paused", extra={"method": every.name, "reason": f"the period is {period!r} seconds"})
            period = 60.0
        due = max(due + period * random.uniform(0.95, 1.05), anyio.current_time())
        await anyio.sleep_until(due)
        outcome = await guarded(getattr(plugin, every.name))
        if isinstance(outcome, Failure):
            log.error("tick.failed", exc_info=outcome.error, extra={"method": every.name})


async def supervise(plugin: Plugin, background: Background, status: Status) -> None:
    """Run a method for as long as the plugin serves; start it again after 1 to 60 seconds where that is asked for."""
    for wait in delays(1.0, 60.0):
        outcome = await guarded(getattr(plugin, background.name))
        where = {"method": background.name}
        if isinstance(outcome, Failure):
            log.error("background.failed", exc_info=outcome.error, extra=where)
        elif background.restart:
            log.warning("background.ended", extra=where)
        if not background.restart:
            if isinstance(outcome, Failure):
                status.trouble(background.name, f"{background.name} failed and is not restarted")
            return
        await anyio.sleep(wait)
