"""Between the border and the engine, as MQTTnet's server does it by default (broker-models, model "embedded"). No I/O.

- The session goes with the connection, whatever the client asked for; session present is always 0.
- The engine gets its acknowledgements from here, at once: nothing waits for those of the client, and nothing is sent
  twice. What the client has not acknowledged when its connection ends is gone.
- Packet ids towards the client are counted here, from 1 to 65535 and again, whether acknowledged or not.
- A publication of the client at QoS 2 is dispatched when its PUBLISH comes; one that is sent again is dispatched again.
- On MQTT 5, PUBACK and PUBREC say 0x10 where nobody has subscribed.
- Denied publications are acknowledged and denied filters granted as if they were not: that is the border's rule for
  both models.
- A client that is silent for one and a half times its keep-alive is disconnected by the gate.

The queue of a client, with its limit, is in `outlet`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kepm_plugin.devagent.bodies import Connect, Publish, connack, read_connack
from kepm_plugin.devagent.border import Border
from kepm_plugin.devagent.delivery import Outgoing, packet_of
from kepm_plugin.devagent.packets import (
    CONNACK,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    V5,
    Packet,
    acknowledgement,
    packet_id,
    without_properties,
)

NO_MATCHING_SUBSCRIBERS: Final = 0x10
LARGEST_ID: Final = 0xFFFF
LONGEST_KEEP_ALIVE: Final = 0xFFFF
SESSION_EXPIRY: Final = 0x11
RECEIVE_MAXIMUM: Final = 0x21


class Embedded:
    """One connection of a broker that is embedded in the agent's service.

    Attributes:
        patience: One and a half times the client's keep-alive, None where that is 0.
    """

    def __init__(self, border: Border, connect: Connect, anybody: Callable[[str], bool]) -> None:
        """Prepare; `anybody` tells whether a client has subscribed to a topic."""
        self.patience: float | None = connect.keep_alive * 1.5 or None
        self._border, self._version, self._anybody = border, connect.level, anybody
        self._last_sent = self._last_passed = 0
        self._passed: dict[int, tuple[int, str]] = {}  # our packet id at the engine: the client's own, topic

    def connect(self, connect: Connect) -> Connect:
        """Return CONNECT with a clean session and without limits; the keep-alive is watched by the gate."""
        properties = without_properties(connect.properties, (SESSION_EXPIRY, RECEIVE_MAXIMUM))
        allowed = self._border.connect(connect)
        return replace(allowed, clean=True, keep_alive=LONGEST_KEEP_ALIVE, properties=properties)

    def from_client(self, packet: Packet) -> tuple[bytes, bytes]:
        """Answer for the engine what it need not see.

        Raises:
            ValueError: The packet breaks the protocol.
        """
        if packet.kind == PUBLISH:
            return self._publish(packet)
        forward, back = self._border.from_client(packet)
        if packet.kind == PUBREC:
            return b"", acknowledgement(PUBREL, packet_id(packet))
        if packet.kind == PUBREL:
            return b"", acknowledgement(PUBCOMP, packet_id(packet))
        return (b"", back) if packet.kind in (PUBACK, PUBCOMP) else (forward, back)

    def from_engine(self, packet: Packet) -> tuple[bytes, Outgoing | None]:
        """Acknowledge to the engine, and pass on what is the client's."""
        kind = packet.kind
        if kind == PUBLISH:
            return self._deliver(packet)
        if kind == PUBACK:
            return b"", self._dispatched(packet)
        if kind == PUBREC:
            return acknowledgement(PUBREL, packet_id(packet)), self._dispatched(packet)
        if kind == PUBREL:
            return acknowledgement(PUBCOMP, packet_id(packet)), None
        if kind == PUBCOMP:
            return b"", None
        if kind == CONNACK and not read_connack(packet)[1]:
            return b"", packet_of(connack(self._version))
        return b"", packet_of(self._border.from_engine(packet))

    def _publish(self, packet: Packet) -> tuple[bytes, bytes]:
        forward, back = self._border.from_client(packet)
        publish = Publish.read(packet, self._version)
        if not forward or not publish.qos:
            return forward, back
        if publish.qos == 2:  # PUBLISH was the dispatch: one with the same packet id is another publication
            self._border.from_client(Packet(PUBREL, 2, publish.mid.to_bytes(2, "big")))
        self._last_passed = self._free(self._last_passed)
        self._passed[self._last_passed] = publish.mid, publish.topic
        return replace(publish, mid=self._last_passed, dup=False).encode(self._version), b""

    def _free(self, last: int) -> int:
        """Return the next packet id towards the engine that it has not answered yet."""
        mid = _next(last)
        while mid in self._passed:
            mid = _next(mid)
        return mid

    def _dispatched(self, packet: Packet) -> Outgoing | None:
        """Tell the client that its publication was dispatched, and on MQTT 5 whether to nobody."""
        known = self._passed.pop(packet_id(packet), None)
        if known is None:
            return None
        mid, topic = known
        code = packet.body[2] if self._version >= V5 and len(packet.body) > 2 else 0
        # mosquitto says it in PUBACK, but not in PUBREC
        if self._version >= V5 and packet.kind == PUBREC and not code and not self._anybody(topic):
            code = NO_MATCHING_SUBSCRIBERS
        return packet_of(Packet(packet.kind, 0, mid.to_bytes(2, "big") + bytes([code] if code else [])).encode())

    def _deliver(self, packet: Packet) -> tuple[bytes, Outgoing | None]:
        publish = Publish.read(packet, self._version)
        if not publish.qos:
            return b"", Outgoing(PUBLISH, self._border.from_engine(packet))
        answer = acknowledgement(PUBACK if publish.qos == 1 else PUBREC, publish.mid)
        if publish.dup:
            return answer, None  # the engine repeats what it was answered for: the session is this connection
        self._last_sent = _next(self._last_sent)
        numbered = replace(publish, mid=self._last_sent)
        return answer, Outgoing(PUBLISH, self._border.from_engine(numbered.packet(self._version)), numbered)


def _next(mid: int) -> int:
    return mid % LARGEST_ID + 1
