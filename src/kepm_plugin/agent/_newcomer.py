"""A new connection to the agent's API: looked at before a byte is sent, and closed where it comes to nothing."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx

from ..peer import Trust

_CLOSE_GRACE: Final = 1.0  # seconds


class Newcomer:
    """Follows a connection that one request makes, if it makes one (httpcore's "trace" extension)."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._stream: Any = None  # httpcore's, over TCP alone

    async def __call__(self, event: str, details: Mapping[str, Any]) -> None:
        """Take note of a step; raise where who is at the other end is not trusted."""
        if event == "connection.connect_tcp.complete":
            self._stream = details["return_value"]
            await self._check(self._stream, answered=False)
        elif event == "connection.start_tls.complete":
            await self._check(details["return_value"], answered=True)

    async def _check(self, stream: Any, *, answered: bool) -> None:
        trusted = False
        try:
            local, remote = stream.get_extra_info("client_addr"), stream.get_extra_info("server_addr")
            if remote is None:  # so anyio says that the other end has gone
                raise httpx.ConnectError("the connection was ended at once")
            if not self._trust.known(local[:2], remote[:2], answered=answered):
                check = partial(self._trust.check, local[:2], remote[:2], answered=answered)
                await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
            trusted = True
        finally:
            if not trusted:  # nobody else closes a stream that a trace function refuses
                await self.close()

    async def close(self) -> None:
        """Close the connection, where this request has made one: httpcore leaves it open if it is cancelled early."""
        if self._stream is not None:
            with anyio.move_on_after(_CLOSE_GRACE, shield=True):
                await self._stream.aclose()
