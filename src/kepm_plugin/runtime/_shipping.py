"""Log records on their way from the pipe to `KeeperLogger`."""

import logging
from collections.abc import Callable

import anyio

from kepm_plugin.contract import LOGGER_TOPIC
from kepm_plugin.errors import LinkLost, Overloaded
from kepm_plugin.eventloop import run_soon_on_loop
from kepm_plugin.logs import LogPipe
from kepm_plugin.message import Publication
from kepm_plugin.outbox import Outbox
from kepm_plugin.store import Keep

log = logging.getLogger("kepm_plugin.logs")

RECORDS = 100
"""Log records that are moved to the outbox at a time: they never crowd out answers."""


class LogShipper:
    """Moves records while the link is up, or the outbox keeps them on disk; else they wait in the pipe."""

    def __init__(self, pipe: LogPipe, outbox: Outbox, is_up: Callable[[], bool]) -> None:
        self._pipe, self._outbox, self._is_up = pipe, outbox, is_up
        self._roused = anyio.Event()

    async def run(self) -> None:
        """Move records, without end."""
        run_soon = run_soon_on_loop()
        self._pipe.wake(lambda: run_soon(self.rouse))
        try:
            while True:
                await self.rest()
                self._roused = anyio.Event()
                await self._roused.wait()
        finally:
            self._pipe.wake(None)

    async def rest(self) -> None:
        """Move all that is there; return when the broker or the disk has it, or neither takes anything."""
        while (self._is_up() or self._outbox.keeps_records) and await self._move():
            pass
        self._pipe.settle()  # Without a link, too: what waits for long waits as records.

    def rouse(self) -> None:
        """Look again: there are records, or somebody who takes them."""
        self._roused.set()

    def leave(self) -> None:
        """Leave to the next run what the outbox keeps: the link is gone for good."""
        while self._outbox.keeps_records and (records := self._pipe.take(RECORDS)):
            for record in records:
                self._outbox.put_soon(Publication(LOGGER_TOPIC, record), kind=Keep.RECORD)

    async def _move(self) -> bool:
        """Move some records and wait for the last one only: others publish all the time. False: there are none."""
        records = self._pipe.take(RECORDS)
        if not records:
            return False
        *others, last = records
        for record in others:
            self._outbox.put_soon(Publication(LOGGER_TOPIC, record), kind=Keep.RECORD)
        try:
            # Bounded by the outbox: after a loss the next look is at whether the link is up.
            await self._outbox.put(Publication(LOGGER_TOPIC, last), wait="safe", kind=Keep.RECORD)
        except Overloaded:
            self._outbox.lose()
        except LinkLost as exc:  # It stays queued.
            log.debug("records.waiting", extra={"reason": str(exc)})
        return True
