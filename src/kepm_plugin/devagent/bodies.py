"""What stands inside CONNECT, CONNACK, PUBLISH, SUBSCRIBE and their answers (MQTT 3.1.1 and 5), without I/O.

Properties are kept as the bytes that came in, so that what is rewritten loses none.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

from kepm_plugin.devagent.packets import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    TOPIC_ALIAS,
    UNSUBSCRIBE,
    V5,
    Cursor,
    Packet,
    binary,
    property_list,
    read_properties,
)

# Refusals as the two versions number them: (3.1.1 return code, MQTT 5 reason code).
BAD_VERSION: Final = (0x01, 0x84)
BAD_CLIENT_ID: Final = (0x02, 0x85)
UNAVAILABLE: Final = (0x03, 0x88)
BAD_CREDENTIAL: Final = (0x04, 0x86)
NOT_AUTHORISED: Final = (0x05, 0x87)
TAKEN_OVER: Final = 0x8E


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when the client is lost."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """The body of CONNECT. `level` is the protocol level: 4 is MQTT 3.1.1, 5 is MQTT 5."""

    level: int
    client_id: str
    clean: bool = True
    keep_alive: int = 60
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: bytes = b""

    @classmethod
    def read(cls, packet: Packet) -> "Connect":
        """Decode CONNECT. Of a level that is neither 4 nor 5 nothing but the level is read."""
        cursor = Cursor(packet.body)
        name, level = cursor.binary(), cursor.integer(1)
        if name not in (b"MQTT", b"MQIsdp"):
            raise ValueError("CONNECT of another protocol")
        if name != b"MQTT" or level not in (4, 5):
            return cls(level=level, client_id="")
        flags, keep_alive = cursor.integer(1), cursor.integer(2)
        if flags & 0x01:
            raise ValueError("CONNECT with the reserved flag set")
        properties = cursor.properties(level)
        dict(read_properties(properties))  # malformed ones are found here, and not where one is looked up
        client_id = cursor.text()
        will = None
        if flags & 0x04:
            will_properties = cursor.properties(level)
            will = Will(cursor.text(), cursor.binary(), flags >> 3 & 3, bool(flags & 0x20), will_properties)
        username = cursor.text() if flags & 0x80 else None
        password = cursor.binary() if flags & 0x40 else None
        return cls(
            level=level,
            client_id=client_id,
            clean=bool(flags & 0x02),
            keep_alive=keep_alive,
            will=will,
            username=username,
            password=password,
            properties=properties,
        )

    def encode(self) -> bytes:
        """Return the packet's bytes."""
        flags = 0x02 if self.clean else 0
        body = property_list(self.properties, self.level) + binary(self.client_id)
        if self.will is not None:
            flags |= 0x04 | self.will.qos << 3 | (0x20 if self.will.retain else 0)
            body += property_list(self.will.properties, self.level)
            body += binary(self.will.topic) + binary(self.will.payload)
        if self.username is not None:
            flags |= 0x80
            body += binary(self.username)
        if self.password is not None:
            flags |= 0x40
            body += binary(self.password)
        head = binary("MQTT") + struct.pack("!BBH", self.level, flags, self.keep_alive)
        return Packet(CONNECT, 0, head + body).encode()

    def with_credential(self, credential: tuple[str, str] | None) -> "Connect":
        """Return this CONNECT with the engine's credential in place of the client's own."""
        user, password = credential or (None, None)
        return replace(self, username=user, password=None if password is None else password.encode())


def connack(level: int, code: tuple[int, int] = (0, 0), *, session_present: bool = False) -> bytes:
    """Return CONNACK; `code` is one of the pairs above."""
    body = bytes([int(session_present), code[1] if level >= V5 else code[0]]) + property_list(b"", level)
    return Packet(CONNACK, 0, body).encode()


def refusal_code(code: int) -> tuple[int, int]:
    """Return a refusal as both versions number it, by the number of either; the number itself where it has no pair."""
    pairs = (BAD_VERSION, BAD_CLIENT_ID, UNAVAILABLE, BAD_CREDENTIAL, NOT_AUTHORISED)
    return next((pair for pair in pairs if code in pair), (code, code))


def read_connack(packet: Packet) -> tuple[bool, int]:
    """Return whether a session was present, and the return or reason code."""
    cursor = Cursor(packet.body)
    return bool(cursor.integer(1) & 1), cursor.integer(1)


def disconnect(reason: int | None = None) -> bytes:
    """Return DISCONNECT; `reason` is for MQTT 5."""
    return Packet(DISCONNECT, 0, b"" if reason is None else bytes([reason])).encode()


@dataclass(frozen=True, slots=True)
class Publish:
    """The body of PUBLISH; `mid` is 0 at QoS 0, `alias` the MQTT 5 topic alias."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    mid: int = 0
    properties: bytes = b""
    alias: int | None = None

    @classmethod
    def read(cls, packet: Packet, version: int) -> "Publish":
        """Decode PUBLISH."""
        qos = packet.flags >> 1 & 3
        if qos == 3:
            raise ValueError("PUBLISH at QoS 3")
        cursor = Cursor(packet.body)
        topic = cursor.text()
        mid = cursor.integer(2) if qos else 0
        properties = cursor.properties(version)
        alias = next((value for key, value in read_properties(properties) if key == TOPIC_ALIAS), None)
        if "+" in topic or "#" in topic or (not topic and alias is None):
            raise ValueError(f"PUBLISH to {topic!r}, which is no topic name")
        retain, dup = bool(packet.flags & 1), bool(packet.flags & 8)
        return cls(topic, cursor.rest(), qos, retain, dup, mid, properties, alias if isinstance(alias, int) else None)

    def packet(self, version: int) -> Packet:
        """Return the packet."""
        flags = (8 if self.dup else 0) | self.qos << 1 | int(self.retain)
        mid = struct.pack("!H", self.mid) if self.qos else b""
        head = binary(self.topic) + mid + property_list(self.properties, version)
        return Packet(PUBLISH, flags, head + self.payload)

    def encode(self, version: int) -> bytes:
        """Return the packet's bytes."""
        return self.packet(version).encode()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """The body of SUBSCRIBE: filters with their options byte, whose two low bits are the QoS."""

    mid: int
    filters: tuple[tuple[str, int], ...]
    properties: bytes = b""

    @classmethod
    def read(cls, packet: Packet, version: int) -> "Subscribe":
        """Decode SUBSCRIBE."""
        cursor = Cursor(packet.body)
        mid, properties = cursor.integer(2), cursor.properties(version)
        filters: list[tuple[str, int]] = []
        while cursor.left:
            filters.append((cursor.text(), cursor.integer(1)))
        if not filters:
            raise ValueError("SUBSCRIBE without a filter")
        return cls(mid, tuple(filters), properties)

    def encode(self, version: int) -> bytes:
        """Return the packet's bytes."""
        body = struct.pack("!H", self.mid) + property_list(self.properties, version)
        body += b"".join(binary(name) + bytes([options]) for name, options in self.filters)
        return Packet(SUBSCRIBE, 2, body).encode()


@dataclass(frozen=True, slots=True)
class Suback:
    """The body of SUBACK: one code for each filter."""

    mid: int
    codes: bytes
    properties: bytes = b""

    @classmethod
    def read(cls, packet: Packet, version: int) -> "Suback":
        """Decode SUBACK."""
        cursor = Cursor(packet.body)
        mid, properties = cursor.integer(2), cursor.properties(version)
        return cls(mid, cursor.rest(), properties)

    def encode(self, version: int) -> bytes:
        """Return the packet's bytes."""
        body = struct.pack("!H", self.mid) + property_list(self.properties, version) + self.codes
        return Packet(SUBACK, 0, body).encode()


def read_unsubscribe(packet: Packet, version: int) -> tuple[int, tuple[str, ...]]:
    """Return packet id and filters of UNSUBSCRIBE."""
    cursor = Cursor(packet.body)
    mid, _ = cursor.integer(2), cursor.properties(version)
    filters: list[str] = []
    while cursor.left:
        filters.append(cursor.text())
    return mid, tuple(filters)


def unsubscribe(mid: int, filters: tuple[str, ...], version: int) -> bytes:
    """Return the bytes of UNSUBSCRIBE."""
    body = struct.pack("!H", mid) + property_list(b"", version) + b"".join(binary(name) for name in filters)
    return Packet(UNSUBSCRIBE, 2, body).encode()
