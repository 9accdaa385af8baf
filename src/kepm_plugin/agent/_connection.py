"""HTTP/1.1 over one TLS socket, one request after the other; h11 knows the protocol."""

import select
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import anyio
import anyio.lowlevel
import h11
from msgspec import Struct

from ..errors import BadAgentAnswer
from ._answer import Answer

ANSWER_LIMIT: Final = 1024 * 1024
"""Bytes of an answer that are read; no documented one comes near."""
_SHOWN: Final = 200  # characters of a header's value
_IN_PATHS: Final = "/%:@!$&'()*+,;="  # characters that need no quoting, and the sign of those that are quoted already
_PIECE: Final = 65_536  # bytes that are read at once


class Request(Struct, frozen=True):
    """What is asked; `what` names it in errors."""

    what: str
    head: h11.Request
    body: bytes

    @staticmethod
    def made(method: str, url: str, headers: Mapping[str, str], body: bytes) -> "Request":
        """Make a request.

        Raises:
            h11.LocalProtocolError: It would be none, by what is in the URL.
        """
        sized = headers if method == "GET" else {**headers, "Content-Length": str(len(body))}
        target = quote(urlsplit(url).path, safe=_IN_PATHS)
        return Request(f"{method} {url}", h11.Request(method=method, target=target, headers=[*sized.items()]), body)

    @property
    def asks(self) -> bool:
        """Whether it changes nothing."""
        return self.head.method == b"GET"


class Connection:
    """A connection that is closed by whoever opened it, or by the other end.

    Attributes:
        heard: Something came back for the last request.
    """

    def __init__(self, secure: ssl.SSLSocket) -> None:
        self._socket = secure
        self._http = h11.Connection(h11.CLIENT)
        self.heard = False

    async def exchange(self, request: Request) -> Answer:
        """Send a request, and read its answer to the end.

        Raises:
            OSError: The connection broke.
            h11.RemoteProtocolError: What came is no HTTP, or ended too early.
            BadAgentAnswer: The answer is too long, or compressed.
        """
        self.heard = False
        parts = (request.head, h11.Data(request.body), h11.EndOfMessage())
        await self._send(b"".join(self._http.send(part) or b"" for part in parts))
        while isinstance(head := await self._event(), h11.InformationalResponse):
            pass
        told = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        encoding = told.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):  # a few bytes could become gigabytes before they are counted
            raise BadAgentAnswer(
                f"{request.what}: the answer is compressed ({encoding[:_SHOWN]}), which nobody asked for"
            )
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > ANSWER_LIMIT:
                raise BadAgentAnswer(f"{request.what}: the answer is longer than {ANSWER_LIMIT} bytes")
        return Answer(head.status_code, told, bytes(body), request.head.method.decode("ascii"))

    def may_go_on(self) -> bool:
        """Tell whether another request can be sent after an exchange; then it has to be."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def is_quiet(self) -> bool:
        """Tell whether nothing has come since: not the end either, of an agent that has closed it."""
        # Not by select(), which knows no descriptors above 1,023.
        poll = getattr(select, "poll", None)
        if poll is None:
            return not select.select([self._socket], [], [], 0)[0]
        watched = poll()
        watched.register(self._socket, select.POLLIN)
        return not watched.poll(0)

    def close(self) -> None:
        """Close it, whatever goes on."""
        self._socket.close()

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._received())
        return event

    async def _received(self) -> bytes:
        await anyio.lowlevel.checkpoint()  # one that never stops sending must not keep the deadline from coming
        while True:
            try:
                data = self._socket.recv(_PIECE)
            except ssl.SSLWantReadError:
                await anyio.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)
            else:
                self.heard = self.heard or bool(data)
                return data

    async def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except ssl.SSLWantReadError:
                await anyio.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)
