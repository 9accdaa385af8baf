"""Connections to the agent: kept for the next request, and made anew when the agent has another certificate.

The agent makes a new certificate at every start (Cert Support), and whoever exports it replaces the bundle's file. A
process that read it once would be locked out from then on.
"""

import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

import h11

from ..errors import AgentError, AgentUnreachable, PeerNotTrusted, UsageError
from ..peer import Trust, dial, failed_verification, tls_error
from ._answer import Answer
from ._connection import Connection, Request

_KEPT: Final = 2  # connections that wait for a request; a plugin asks one thing at a time, and rarely two
_KEPT_FOR: Final = 60.0  # seconds; less than servers keep one, so that it is us who closes


class Transport(Protocol):
    """Carries a request to the agent; `exchange` raises what `Connection.exchange` does, and `AgentError`."""

    async def exchange(self, request: Request) -> Answer:
        """Return the answer."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class HttpsTransport:
    """Carries requests over TLS, each over a connection of its own while it lasts."""

    def __init__(self, host: str, port: int, trust: Trust, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the settings for TLS.

        Raises:
            PeerNotTrusted: Neither a CA bundle nor a loopback host.
            UsageError: The CA bundle cannot be used.
        """
        self._host, self._port, self._trust, self._clock = host, port, trust, clock
        self._tls = self._settings()
        self._idle: list[tuple[Connection, float]] = []

    def _settings(self) -> ssl.SSLContext:
        made = self._trust.context(self._host)
        made.set_alpn_protocols(["http/1.1"])
        return made

    async def exchange(self, request: Request) -> Answer:
        """Return the answer."""
        if (waiting := self._waiting()) is not None:
            try:
                return await self._over(waiting, request)
            except (OSError, h11.RemoteProtocolError):
                # The agent may have closed it this moment. What only asks can be asked again (RFC 9110, 9.2.2).
                if waiting.heard or not request.asks:
                    raise
        return await self._over(await self._connect(request.what), request)

    def close(self) -> None:
        """Close what waits."""
        while self._idle:
            self._idle.pop()[0].close()

    def _waiting(self) -> Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if self._clock() - since < _KEPT_FOR and connection.is_quiet():
                return connection
            connection.close()
        return None

    async def _over(self, connection: Connection, request: Request) -> Answer:
        reusable = False
        try:
            answer = await connection.exchange(request)
            reusable = connection.may_go_on() and len(self._idle) < _KEPT
            return answer
        finally:
            if reusable:
                self._idle.append((connection, self._clock()))
            else:
                connection.close()

    async def _connect(self, what: str) -> Connection:
        """Connect; where the certificate was refused, nothing was sent, and one more attempt is made."""
        used = self._tls
        try:
            return Connection(await dial(self._host, self._port, used, self._trust))
        except OSError as error:
            if failed_verification(error) is None:
                raise _told(what, error) from None
            refusal = error
        if used is self._tls:
            try:
                self._tls = self._settings()
            except UsageError as refused:  # It was well at the start: somebody is just replacing it.
                raise PeerNotTrusted(str(refused)) from refusal
        try:
            return Connection(await dial(self._host, self._port, self._tls, self._trust))
        except OSError as error:
            raise _told(what, error) from None


def _told(what: str, error: OSError) -> AgentError:
    if (failed := tls_error(what, error)) is not None:
        return failed
    return unreachable(what, error)


def unreachable(what: str, error: Exception) -> AgentUnreachable:
    """Return the error that says that a request came to nothing."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return AgentUnreachable(f"{what}: {text}; is the agent running, and is this its address?")
