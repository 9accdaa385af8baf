"""A small MQTT client on the local agent's gate, of the local agent's own codec: it has nothing of the framework."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from kepm_plugin.devagent.bodies import Connect, Publish, Subscribe, read_connack
from kepm_plugin.devagent.packets import CONNACK, PUBACK, SUBACK, V311, Packet, Splitter, acknowledgement


class Lost(Exception):
    """The connection ended, or was refused."""


class GateClient:
    """One connection. Packets are read by one task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._splitter = Splitter()
        self._early: list[Packet] = []

    async def packets(self) -> list[Packet]:
        """Return the packets that come next, at least one.

        Raises:
            Lost: The connection ended.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        while True:
            data = await self._reader.read(65536)
            if not data:
                raise Lost
            if packets := self._splitter.feed(data):
                return packets

    async def expect(self, kind: int) -> Packet:
        """Return the next packet of a kind; the others come later."""
        passed: list[Packet] = []
        while True:
            packets = await self.packets()
            for place, packet in enumerate(packets):
                if packet.kind == kind:
                    self._early = passed + packets[:place] + packets[place + 1 :]
                    return packet
            passed += packets

    def publish(self, publish: Publish) -> None:
        """Send a publication."""
        self._writer.write(publish.encode(V311))

    def acknowledge(self, publish: Publish) -> None:
        """Acknowledge a publication at QoS 1."""
        self._writer.write(acknowledgement(PUBACK, publish.mid))

    async def drain(self) -> None:
        """Return when the socket takes more."""
        await self._writer.drain()


@asynccontextmanager
async def gate_client(host: str, port: int, client_id: str, *filters: str) -> AsyncGenerator[GateClient]:
    """Connect, with a session that the broker may keep, and subscribe, for the time of the block.

    Raises:
        Lost: The gate does not let us in.
        OSError: Nobody listens.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    client = GateClient(reader, writer)
    try:
        writer.write(Connect(level=V311, client_id=client_id, clean=False).encode())
        if read_connack(await client.expect(CONNACK))[1]:
            raise Lost
        writer.write(Subscribe(0xFFFF, tuple((name, 1) for name in filters)).encode(V311))
        await client.expect(SUBACK)
        yield client
    finally:
        writer.close()
