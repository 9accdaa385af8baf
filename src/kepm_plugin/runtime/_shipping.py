"""Log records on their way from the pipe to `KeeperLogger`."""

from collections.abc import Callable

import anyio

from kepm_plugin.contract import LOGGER_TOPIC
from kepm_plugin.eventloop import run_soon_on_loop
from kepm_plugin.logs import LogPipe
from kepm_plugin.message import Publication
from kepm_plugin.outbox import Outbox

RECORDS = 100
"""Log records that are moved to the outbox at a time: they never crowd out answers."""


class LogShipper:
    """Moves records while the link is up; while it is not, they wait in the pipe."""

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
        """Move all that is there; return when the broker has it, or the link is down."""
        while self._is_up() and self._move():
            await self._outbox.flushed()

    def rouse(self) -> None:
        """Look again: there are records, or the link is up."""
        self._roused.set()

    def _move(self) -> int:
        records = self._pipe.take(RECORDS)
        for record in records:
            self._outbox.put_soon(Publication(LOGGER_TOPIC, record))
        return len(records)
