"""A real connection to a broker that does as it is told: what is done with the bytes of messages and publications.

The broker is a thread that has sent everything before a step is counted, so that how it comes in pieces is the same
each time.
"""

import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio

from kepm_plugin.broker import BrokerAddress, Link, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.message import Publication, Received
from tests.benchmarks.broker import Certificate
from tests.budget.counter import Steps, counted, standing_still
from tests.budget.memory import PATIENCE, PAYLOAD, Awaited, turns

TOPIC: Final = "Measured/Events/t0000/web-01"
CONNACK: Final = b"\x20\x03\0\0\0"


def packet(header: int, body: bytes) -> bytes:
    """Return an MQTT packet of fewer than 16,384 bytes."""
    length = len(body)
    return bytes([header, *([length] if length < 128 else [length % 128 | 128, length // 128])]) + body


def publish(mid: int, qos: int) -> bytes:
    """Return a PUBLISH of MQTT 5 as brokers send nearly all of them: without properties."""
    topic = TOPIC.encode()
    identity = mid.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1, len(topic).to_bytes(2, "big") + topic + identity + b"\0" + PAYLOAD)


class Broker:
    """The broker's end of one connection; its methods block."""

    def __init__(self, server: ssl.SSLSocket) -> None:
        self._server = server
        self._peer: ssl.SSLSocket | None = None
        self._thread = threading.Thread(target=self._accept, name="budget broker", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        self._peer, _ = self._server.accept()
        self._peer.settimeout(PATIENCE)
        self.take()
        self._peer.sendall(CONNACK)

    def send(self, packets: Sequence[bytes]) -> None:
        """Send all at once."""
        self._thread.join(PATIENCE)
        assert self._peer is not None
        self._peer.sendall(b"".join(packets))

    def take(self) -> tuple[int, bytes]:
        """Return header and body of the next packet."""
        header, length, shift = self._read(1)[0], 0, 0
        while True:
            byte = self._read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return header, self._read(length)

    def _read(self, size: int) -> bytes:
        assert self._peer is not None
        data = b""
        while len(data) < size:
            if not (more := self._peer.recv(size - len(data))):
                raise EOFError("the client has gone")
            data += more
        return data

    def close(self) -> None:
        """End the connection."""
        self._thread.join(PATIENCE)
        if self._peer is not None:
            self._peer.close()


@contextmanager
def broker() -> Generator[tuple[Broker, BrokerAddress]]:
    """Listen, for one connection."""
    with tempfile.TemporaryDirectory(prefix="kepm-budget-") as name, socket.create_server(("127.0.0.1", 0)) as plain:
        context = Certificate.make(Path(name)).context()
        with context.wrap_socket(plain, server_side=True) as server:
            made = Broker(server)
            try:
                yield made, BrokerAddress(host="127.0.0.1", port=server.getsockname()[1])
            finally:
                made.close()


class Wired:
    """A session with it."""

    def __init__(self, link: Link, broker: Broker, awaited: Awaited) -> None:
        self._link, self._broker, self._awaited = link, broker, awaited

    async def receive(self, count: int, *, qos: int = 1) -> Steps:
        """Read so many messages, and acknowledge them; what takes them does nothing else."""
        self._awaited.expect(count)
        self._broker.send([publish(mid, qos) for mid in range(1, count + 1)])
        with counted() as steps:
            await self._awaited.all()
        if qos:
            for _ in range(count):
                assert self._broker.take()[0] == 0x40
        return steps

    async def publish(self, count: int) -> Steps:
        """Publish so many, and read the acknowledgements."""
        self._awaited.expect(count)
        with counted() as steps:
            for _ in range(count):
                self._link.publish(Publication(TOPIC, PAYLOAD), self._awaited.one)
            await turns()  # They are written meanwhile.
            mids = [_mid(self._broker.take()[1]) for _ in range(count)]
            self._broker.send([packet(0x40, mid) for mid in mids])
            await self._awaited.all()
        return steps


def _mid(body: bytes) -> bytes:
    end = 2 + int.from_bytes(body[:2], "big")
    return body[end : end + 2]


@asynccontextmanager
async def on_the_wire() -> AsyncGenerator[Wired]:
    """Connect a session that takes what it is sent."""
    awaited = Awaited()

    def deliver(batch: Sequence[Received]) -> None:
        if batch[0].qos:
            link.acknowledge([received.mid for received in batch])
        for _ in batch:
            awaited.one()

    with broker() as (made, address), anyio.fail_after(PATIENCE):
        async with open_session(address, SessionOptions(client_id="Measured"), ProtocolChoice(), deliver) as link:
            with standing_still():
                yield Wired(link, made, awaited)
