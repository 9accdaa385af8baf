"""What may cross on one MQTT connection, and as what. No I/O.

As the agent does it: a denied publication is acknowledged and dropped, a denied subscription is granted and not made,
and the client sees nothing of either (kepm-facts, section 2.4; broker-models, model "embedded").
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kepm_plugin.devagent.bodies import Connect, Publish, Suback, Subscribe, read_unsubscribe
from kepm_plugin.devagent.packets import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Packet,
    acknowledgement,
    packet_id,
)
from kepm_plugin.devagent.rights import Rights
from kepm_plugin.devagent.traffic import PAYLOAD_KEPT, Crossing, Direction

_NOTHING: Final = (b"", b"")
_FROM_CLIENT_ONLY: Final = frozenset({2, 9, 11, 13})  # CONNACK, SUBACK, UNSUBACK, PINGRESP come from a broker


class Border:
    """The rules at work on one connection, from CONNECT to its end.

    Attributes:
        subscriptions: Filters that the engine granted on this connection.
        left: The client said DISCONNECT, so that its end is no loss.
    """

    def __init__(
        self, plugin_id: str, version: int, rights: Callable[[], Rights], report: Callable[[Crossing], None]
    ) -> None:
        self.plugin_id, self.version = plugin_id, version
        self.subscriptions: set[str] = set()
        self.left = False
        self._rights, self._report = rights, report
        self._denied_qos2: set[int] = set()  # packet ids whose PUBREL the engine must not see
        self._incoming_qos2: set[int] = set()  # packet ids seen, so that a retransmission is not recorded twice
        self._outstanding: set[int] = set()  # packet ids from the engine that the client has not acknowledged
        self._asked: dict[int, list[tuple[str, int | None]]] = {}  # SUBSCRIBEs under way: filter, code if denied
        self._aliases: dict[Direction, dict[int, str]] = {"from plugin": {}, "to plugin": {}}

    def connect(self, connect: Connect) -> Connect:
        """Return CONNECT as the engine may see it: a will is a publication, and is dropped where that is denied."""
        will = connect.will
        if will is None:
            return connect
        allowed = self._rights().may_publish(will.topic)
        self._note("from plugin", "WILL", will.topic, will.payload, will.qos, will.retain, allowed=allowed)
        return connect if allowed else replace(connect, will=None)

    def from_client(self, packet: Packet) -> tuple[bytes, bytes]:
        """Return what one packet of the client becomes: bytes for the engine, bytes back to the client.

        Raises:
            ValueError: The packet breaks the protocol.
        """
        kind = packet.kind
        if kind == PUBLISH:
            return self._publish(packet)
        if kind == SUBSCRIBE:
            return self._subscribe(packet)
        if kind == CONNECT or kind in _FROM_CLIENT_ONLY:
            raise ValueError(f"{packet.name} in the wrong place")
        if kind == PUBREL:
            mid = packet_id(packet)
            self._incoming_qos2.discard(mid)
            if mid in self._denied_qos2:
                self._denied_qos2.discard(mid)
                return b"", acknowledgement(PUBCOMP, mid)
        elif kind in (PUBACK, PUBCOMP):
            self._outstanding.discard(packet_id(packet))
        elif kind == UNSUBSCRIBE:
            for name in read_unsubscribe(packet, self.version)[1]:
                self.subscriptions.discard(name)
                self._note("from plugin", "UNSUBSCRIBE", name)
        elif kind == DISCONNECT:
            self.left = not packet.body or packet.body[0] != 0x04  # 0x04: disconnect with will message
        return packet.encode(), b""

    def from_engine(self, packet: Packet) -> bytes:
        """Return what one packet of the engine becomes for the client."""
        if packet.kind == PUBLISH:
            publish = self._named(Publish.read(packet, self.version), "to plugin")
            if publish.qos and publish.dup and publish.mid in self._outstanding:
                return b""  # NATS repeats on the same connection after ack_wait; a broker must not (MQTT-4.4.0-1)
            if publish.qos:
                self._outstanding.add(publish.mid)
            self._note_publish("to plugin", publish, allowed=True)
        elif packet.kind == SUBACK:
            return self._suback(Suback.read(packet, self.version))
        return packet.encode()

    def _publish(self, packet: Packet) -> tuple[bytes, bytes]:
        publish = self._named(Publish.read(packet, self.version), "from plugin")
        allowed = self._rights().may_publish(publish.topic)
        repeated = publish.qos == 2 and publish.mid in self._incoming_qos2 | self._denied_qos2
        if not repeated:
            self._note_publish("from plugin", publish, allowed=allowed)
        if allowed:
            if publish.qos == 2:
                self._incoming_qos2.add(publish.mid)
            return packet.encode(), b""
        if publish.qos == 2:
            self._denied_qos2.add(publish.mid)
            return b"", acknowledgement(PUBREC, publish.mid)
        return (b"", acknowledgement(PUBACK, publish.mid)) if publish.qos else _NOTHING

    def _subscribe(self, packet: Packet) -> tuple[bytes, bytes]:
        asked = Subscribe.read(packet, self.version)
        rights = self._rights()
        codes: list[tuple[str, int | None]] = []
        passed: list[tuple[str, int]] = []
        for name, options in asked.filters:
            allowed = rights.may_subscribe(name)
            self._note("from plugin", "SUBSCRIBE", name, qos=options & 3, allowed=allowed)
            codes.append((name, None if allowed else options & 3))
            if allowed:
                passed.append((name, options))
        if not passed:
            granted = bytes(code or 0 for _, code in codes)
            return b"", Suback(asked.mid, granted).encode(self.version)
        self._asked[asked.mid] = codes
        return replace(asked, filters=tuple(passed)).encode(self.version), b""

    def _suback(self, answer: Suback) -> bytes:
        asked = self._asked.pop(answer.mid, None)
        if asked is None:
            return answer.encode(self.version)
        theirs = iter(answer.codes)
        codes = bytearray()
        for name, denied in asked:
            code = next(theirs, 0x80) if denied is None else denied
            if denied is None and code < 0x80:
                self.subscriptions.add(name)
                self._note("to plugin", "SUBACK", name, qos=code)
            codes.append(code)
        return replace(answer, codes=bytes(codes)).encode(self.version)

    def _named(self, publish: Publish, direction: Direction) -> Publish:
        """Return the publication under its topic where it came under an alias (MQTT 5.0, section 3.3.2.3.4)."""
        if publish.alias is None:
            return publish
        aliases = self._aliases[direction]
        if publish.topic:
            aliases[publish.alias] = publish.topic
            return publish
        if publish.alias not in aliases:
            raise ValueError(f"PUBLISH with the unknown topic alias {publish.alias}")
        return replace(publish, topic=aliases[publish.alias])

    def _note_publish(self, direction: Direction, publish: Publish, *, allowed: bool) -> None:
        kept = publish.payload[:PAYLOAD_KEPT]
        self._note(
            direction, "PUBLISH", publish.topic, kept, publish.qos, publish.retain, dup=publish.dup, allowed=allowed
        )

    def _note(
        self,
        direction: Direction,
        kind: str,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        *,
        dup: bool = False,
        allowed: bool = True,
    ) -> None:
        self._report(
            Crossing(
                plugin_id=self.plugin_id,
                direction=direction,
                kind=kind,
                topic=topic,
                payload=payload,
                qos=qos,
                retain=retain,
                dup=dup,
                allowed=allowed,
            )
        )
