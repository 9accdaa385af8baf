"""A broker that does what the test says, byte for byte."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from kepm_plugin.broker import BrokerAddress, Link, ProtocolChoice, SessionOptions, Version, open_session


def packet(header: int, body: bytes) -> bytes:
    """Return an MQTT packet; its length is one of those that fit in two bytes."""
    length = len(body)
    return bytes([header, *([length] if length < 128 else [length % 128 | 128, length // 128])]) + body


class Peer:
    """The broker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.connect = b""
        """The CONNECT that was answered."""

    async def packet(self) -> tuple[int, bytes]:
        """Return header byte and body of the next packet."""
        with anyio.fail_after(5):
            header = (await self._reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return header, await self._reader.readexactly(length)

    async def expect(self, *packets: bytes) -> None:
        """Read exactly these bytes."""
        expected = b"".join(packets)
        with anyio.fail_after(5):
            assert await self._reader.readexactly(len(expected)) == expected

    async def rest(self) -> bytes:
        """Return what comes until the other end closes."""
        with anyio.fail_after(5):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(packets))


class Listener:
    """Listens where a broker should, and answers CONNECT with `connack`, or not at all where that is None."""

    def __init__(self, connack: bytes | None) -> None:
        self.connack = connack
        self.address = BrokerAddress()
        self.accepted = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue(100)
        self._writers: list[asyncio.StreamWriter] = []

    async def peer(self) -> Peer:
        """Return the next connection, when its CONNECT has been answered."""
        with anyio.fail_after(5):
            return await self._peers.get()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.append(writer)
        peer = Peer(reader, writer)
        if self.connack is not None:
            _, peer.connect = await peer.packet()
            if self.connack == b"":
                writer.close()
            peer.send(self.connack)
        self._peers.put_nowait(peer)

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None) -> AsyncGenerator["Listener"]:
        server = await asyncio.start_server(self._greet, "127.0.0.1", 0, ssl=tls)
        try:
            self.address = BrokerAddress(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
                with anyio.move_on_after(1), contextlib.suppress(OSError):
                    await writer.wait_closed()


class Scripted:
    """What the scripted tests use."""

    packet = staticmethod(packet)

    def __init__(self, certificate: Any) -> None:
        self.certificate = certificate

    def listening(self, connack: bytes | None, *, tls: bool = True) -> AbstractAsyncContextManager[Listener]:
        return Listener(connack).listening(self.certificate.server_context() if tls else None)

    @asynccontextmanager
    async def session(
        self, version: Version, inbox: Any, *, connack: bytes | None = None, **options: Any
    ) -> AsyncGenerator[tuple[Link, Peer]]:
        """Yield both ends of a connection."""
        choice = ProtocolChoice()
        choice.version = version
        answer = connack or (packet(0x20, b"\0\0\0") if version == "5" else packet(0x20, b"\0\0"))
        async with (
            self.listening(answer) as listener,
            open_session(listener.address, SessionOptions(client_id="P", **options), choice, inbox.deliver) as link,
        ):
            yield link, await listener.peer()


@pytest.fixture
def scripted(certificate: Any) -> Scripted:
    return Scripted(certificate)
