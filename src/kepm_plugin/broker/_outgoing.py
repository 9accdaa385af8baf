"""Publications at QoS 1 and acknowledgements: packets of ours, many in one write.

Nearly all publications are at QoS 1. paho makes a message, a lock and a condition for each, and writes every packet by
itself, which over TLS is a record and a call of the system each. So paho knows nothing of these but the bytes.
"""

from collections.abc import Callable
from typing import Final

from paho.mqtt.client import Client as Paho

from ..message import Publication
from ._private import queue_packets
from ._publish import publish_packet

_JOINED: Final = 16_384  # bytes of packets that are written at once: a TLS record has no more


class Outgoing:
    """What was published at QoS 1, or acknowledged, over one connection; it is written before anything later."""

    def __init__(self, paho: Paho, *, properties: bool, write: Callable[[], None]) -> None:
        """Send nothing yet.

        Args:
            paho: Gets the bytes to write.
            properties: Whether the version has properties, MQTT 5.
            write: Called when there is something to gather; `gather` is to be called before paho writes.
        """
        self._paho, self._properties, self._write = paho, properties, write
        self._packets: list[bytes] = []
        self._size = 0

    def put(self, publication: Publication, *, mid: int, retain: bool) -> None:
        """Send a publication.

        Raises:
            ValueError: MQTT has no packet for it: a wildcard in its topic, or too many bytes.
        """
        self.add(publish_packet(publication, mid=mid, retain=retain, properties=self._properties))

    def add(self, packet: bytes) -> None:
        """Send a packet, or several as one piece."""
        if self._size and self._size + len(packet) > _JOINED:
            self.gather()
        if not self._packets:
            self._write()
        self._packets.append(packet)
        self._size += len(packet)

    def gather(self) -> None:
        """Give paho what there is to write, as one piece."""
        if self._packets:
            queue_packets(self._paho, b"".join(self._packets))
            self._packets.clear()
            self._size = 0
