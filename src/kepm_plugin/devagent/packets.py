"""The MQTT packets that a gate must read and write, 3.1.1 and 5, without I/O.

Only what a gate needs is decoded; the rest of a packet travels as the bytes that came in. Whatever is malformed raises
`ValueError` with the reason: the gate closes the connection then, as a broker must (MQTT 5.0, section 4.13).
"""

import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Final

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15
"""Packet types (MQTT 5.0, section 2.1.2)."""

NAMES: Final = (
    "RESERVED",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
)

V311: Final = 4
V5: Final = 5
"""Protocol levels of CONNECT."""

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of the largest packet that is taken; MQTT itself allows 256 MiB, which nobody sends by intent."""

TOPIC_ALIAS: Final = 0x23
_RESERVED_FLAGS: Final = {PUBREL: 2, SUBSCRIBE: 2, UNSUBSCRIBE: 2}
# Property types by identifier (MQTT 5.0, section 2.2.2.2): width of an integer, or what else follows.
_BYTE = frozenset({0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A})
_TWO = frozenset({0x13, 0x21, 0x22, 0x23})
_FOUR = frozenset({0x02, 0x11, 0x18, 0x27})
_STRING = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F})


@dataclass(frozen=True, slots=True)
class Packet:
    """One control packet: type, the four flag bits, and everything behind the remaining length."""

    kind: int
    flags: int
    body: bytes

    @property
    def name(self) -> str:
        """The packet's name as the standard spells it."""
        return NAMES[self.kind]

    def encode(self) -> bytes:
        """Return the packet's bytes on the wire."""
        return bytes([self.kind << 4 | self.flags]) + varint(len(self.body)) + self.body


class Splitter:
    """Cuts a stream of bytes into packets."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that `data` completes.

        Raises:
            ValueError: The stream is no MQTT, or a packet is larger than the limit.
        """
        self._rest += data
        packets: list[Packet] = []
        start = 0
        while (head := self._head(start)) is not None:
            begin, end = head
            if end > len(self._rest):
                break
            first = self._rest[start]
            packets.append(Packet(first >> 4, first & 0x0F, bytes(self._rest[begin:end])))
            start = end
        del self._rest[:start]
        return packets

    def _head(self, start: int) -> tuple[int, int] | None:
        """Return where the body of the packet at `start` begins and ends, or None while that cannot be told."""
        length = shift = 0
        for position in range(start + 1, min(start + 5, len(self._rest))):
            byte = self._rest[position]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                self._check(self._rest[start], length)
                return position + 1, position + 1 + length
        if len(self._rest) >= start + 5:
            raise ValueError("remaining length of more than four bytes")
        return None

    def _check(self, first: int, length: int) -> None:
        kind, flags = first >> 4, first & 0x0F
        if kind == 0 or (kind != PUBLISH and flags != _RESERVED_FLAGS.get(kind, 0)):
            raise ValueError(f"first byte 0x{first:02x} begins no MQTT packet")
        if length > self._largest:
            raise ValueError(f"{NAMES[kind]} of {length} bytes; the limit is {self._largest}")


class Cursor:
    """Reads values one after the other from a packet's body."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes were not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > self.left:
            raise ValueError("packet ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        """Return what was not read yet."""
        return self.take(self.left)

    def integer(self, width: int) -> int:
        """Return an unsigned integer of `width` bytes."""
        return int.from_bytes(self.take(width), "big")

    def binary(self) -> bytes:
        """Return bytes behind a two-byte length."""
        return self.take(self.integer(2))

    def text(self) -> str:
        """Return a UTF-8 string without NUL (MQTT 5.0, section 1.5.4)."""
        text = self.binary().decode("utf-8")  # UnicodeDecodeError is a ValueError
        if "\0" in text:
            raise ValueError("a string holds NUL")
        return text

    def varint(self) -> int:
        """Return a variable byte integer."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.integer(1)
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise ValueError("variable byte integer of more than four bytes")

    def properties(self, version: int) -> bytes:
        """Return the bytes of a property list without its length; nothing before MQTT 5."""
        return self.take(self.varint()) if version >= V5 else b""


def varint(value: int) -> bytes:
    """Return a variable byte integer (MQTT 5.0, section 1.5.5)."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def binary(value: bytes | str) -> bytes:
    """Return bytes, or UTF-8 text, behind their two-byte length."""
    data = value.encode() if isinstance(value, str) else value
    if len(data) > 0xFFFF:
        raise ValueError(f"{len(data)} bytes do not fit into a field of 65535")
    return struct.pack("!H", len(data)) + data


def property_list(properties: bytes, version: int) -> bytes:
    """Return a property list with its length; nothing before MQTT 5."""
    return varint(len(properties)) + properties if version >= V5 else b""


def read_properties(properties: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield identifier and value of each property: integers as such, strings, data and pairs as their bytes."""
    cursor = Cursor(properties)
    while cursor.left:
        yield _property(cursor)


def without_properties(properties: bytes, unwanted: Container[int]) -> bytes:
    """Return a property list without the properties of some identifiers."""
    cursor = Cursor(properties)
    kept = bytearray()
    while cursor.left:
        start = cursor.at
        if _property(cursor)[0] not in unwanted:
            kept += properties[start : cursor.at]
    return bytes(kept)


def _property(cursor: Cursor) -> tuple[int, bytes | int]:
    identifier = cursor.varint()
    if identifier in _BYTE:
        return identifier, cursor.integer(1)
    if identifier in _TWO:
        return identifier, cursor.integer(2)
    if identifier in _FOUR:
        return identifier, cursor.integer(4)
    if identifier in _STRING:
        return identifier, cursor.binary()
    if identifier == 0x0B:  # subscription identifier
        return identifier, cursor.varint()
    if identifier == 0x26:  # user property: a pair
        return identifier, binary(cursor.binary()) + binary(cursor.binary())
    raise ValueError(f"unknown property 0x{identifier:02x}")


def acknowledgement(kind: int, mid: int) -> bytes:
    """Return PUBACK, PUBREC, PUBREL or PUBCOMP that says success; the short form is legal on MQTT 5 too."""
    return Packet(kind, _RESERVED_FLAGS.get(kind, 0), struct.pack("!H", mid)).encode()


def packet_id(packet: Packet) -> int:
    """Return the packet id of an acknowledgement, SUBSCRIBE, SUBACK, UNSUBSCRIBE or UNSUBACK."""
    return Cursor(packet.body).integer(2)
