"""The publisher, in the harness's own process: gives the broker a burst, and knows when the broker has it.

Packets are made before the first one is sent. That the broker has them it says itself: PUBACK for each at QoS 1, else
PINGRESP, as it works in order.
"""

import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Final

from kepm_plugin.devagent.bodies import Connect, Publish, read_connack
from kepm_plugin.devagent.packets import CONNACK, PINGREQ, PINGRESP, PUBACK, V311, Packet, Splitter
from tests.benchmarks.payload import PAYLOAD, topics

ARE_YOU_THERE: Final = Packet(PINGREQ, 0, b"").encode()
PATIENCE: Final = 60.0


def bursts(size: int, qos: int, handlers: int = 0) -> Iterator[bytes]:
    """Return bursts of so many publications without end, on the topics of all handlers in turn."""
    names = cycle(topics(handlers))
    while True:
        yield b"".join(
            Publish(name, PAYLOAD, qos, mid=mid if qos else 0).encode(V311)
            for mid, name in enumerate(islice(names, size), 1)
        )


class Source:
    """A connection that publishes."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._splitter = connected, Splitter()
        self._socket.sendall(Connect(level=V311, client_id="", clean=True).encode())
        connack = next(packet for packet in self._receive() if packet.kind == CONNACK)
        if read_connack(connack)[1]:
            raise ConnectionRefusedError("the broker refused the publisher")

    def send(self, burst: bytes, acknowledgements: int) -> None:
        """Publish, and return when the broker has worked up to the end of it."""
        self._socket.sendall(burst + ARE_YOU_THERE)
        missing = {PUBACK: acknowledgements, PINGRESP: 1}
        while any(missing.values()):
            for packet in self._receive():
                missing[packet.kind] -= 1

    def _receive(self) -> list[Packet]:
        while True:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the broker closed the connection")
            if found := self._splitter.feed(data):
                return found


@contextmanager
def publishing(port: int) -> Generator[Source]:
    """Connect, for the time of the block; it ends without a word, as there is no will."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connected:
        yield Source(connected)
