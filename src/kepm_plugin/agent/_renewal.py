"""Connections that go on when the agent has another certificate: the CA bundle is read again then.

The agent makes a new certificate at every start (Cert Support), and whoever exports it replaces the bundle's file. A
process that read it once would be locked out from then on.
"""

import ssl
from collections.abc import Callable

# httpx imports httpcore with its first client: then the loop runs, and waits for it.
import httpcore  # noqa: F401  # pyright: ignore[reportUnusedImport]
import httpx

from ..errors import PeerNotTrusted, UsageError
from ..peer import failed_verification


class RenewingTransport(httpx.AsyncBaseTransport):
    """Connects with settings for TLS that are made anew where the agent's certificate does not fit them."""

    def __init__(self, tls: Callable[[], ssl.SSLContext]) -> None:
        """Make the first settings.

        Raises:
            UsageError: The CA bundle cannot be used.
        """
        self._tls = tls
        self._current = self._made()

    def _made(self) -> httpx.AsyncHTTPTransport:
        # Without a limit: httpcore counts connections for ever that were given up in a certain moment.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
        return httpx.AsyncHTTPTransport(verify=self._tls(), trust_env=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; where the certificate was refused, nothing was sent, and one more attempt is made."""
        used = self._current
        try:
            return await used.handle_async_request(request)
        except httpx.ConnectError as refusal:
            if failed_verification(refusal) is None:
                raise
            error = refusal
        if used is self._current:
            try:
                self._current = self._made()
            except UsageError as refused:  # It was well at the start: somebody is just replacing it.
                raise PeerNotTrusted(str(refused)) from error
            await used.aclose()
        return await self._current.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._current.aclose()
