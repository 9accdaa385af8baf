"""From PUBLISH to the framework's message, and from a publication to PUBLISH. Pure.

Nearly all of them are plain: QoS 0 or 1, no properties, a topic that is UTF-8. paho makes an object for each with a
table of all properties that there could be, and one to wait for a publication of ours: more work than everything else
that a message takes. So plain ones are decoded here, and only the others come as messages of paho.
"""

from functools import lru_cache
from typing import Final

from paho.mqtt.client import MQTTMessage

from ..message import EMPTY, Publication, Received

DUP: Final = 0x08
"""The flag, in the first byte of the packet, of what is sent again (MQTT 5.0, section 3.3.1.1)."""

_PUBLISH_1: Final = 0x32  # with QoS 1 in it; the lowest bit is the retain flag
_LONGEST: Final = 268_435_455  # what a remaining length can say (MQTT 5.0, section 1.5.5)
_TEXT: Final = 65_535  # bytes of a topic, and of correlation data
_CORRELATION_DATA: Final = b"\x09"


def publish_packet(publication: Publication, *, mid: int, retain: bool, properties: bool) -> bytes:
    """Return a publication as PUBLISH at QoS 1 (MQTT 5.0, section 3.3).

    Args:
        publication: Whose topic, payload and correlation data they are; the latter needs `properties`.
        mid: The packet id.
        retain: Whether the broker is to keep it.
        properties: Whether the version has properties, MQTT 5.

    Raises:
        ValueError: There is no such packet.
    """
    topic, payload = _topic(publication.topic), publication.payload
    more = b""
    if properties:
        data = publication.correlation_data
        more = b"\0" if data is None else _sized(_CORRELATION_DATA + _text(data, "correlation data"))
    length = len(topic) + 2 + len(more) + len(payload)
    if length > _LONGEST:
        raise ValueError(f"a packet of {length} bytes is more than MQTT can send")
    return b"".join((bytes((_PUBLISH_1 | retain,)), _number(length), topic, mid.to_bytes(2, "big"), more, payload))


@lru_cache(maxsize=256)
def _topic(topic: str) -> bytes:
    data = topic.encode()
    if not data or b"+" in data or b"#" in data:
        raise ValueError(f"nothing can be published on {topic!r}: it is empty, or has a wildcard")
    return _text(data, "a topic")


def _text(data: bytes, what: str) -> bytes:
    if len(data) > _TEXT:
        raise ValueError(f"{what} of {len(data)} bytes is more than MQTT can send")
    return len(data).to_bytes(2, "big") + data


def _sized(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    """Return a variable byte integer (MQTT 5.0, section 1.5.5)."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def plain(header: int, data: bytes, begin: int, end: int, now: float, *, properties: bool) -> Received | None:
    """Return the message of a PUBLISH; None where it is none of these, or malformed, and so for paho to look at.

    Args:
        header: The first byte of the packet.
        data: What the packet is in.
        begin: Where in it the remaining length has ended.
        end: Where the packet ends.
        now: When it was received, in seconds since the epoch.
        properties: Whether the version has properties, MQTT 5.
    """
    qos = header >> 1 & 3
    if qos > 1 or begin + 2 > end:
        return None
    after_topic = begin + 2 + (data[begin] << 8 | data[begin + 1])
    start, mid = after_topic + 2 * qos + properties, 0
    if start > end:
        return None
    if qos:
        mid = data[after_topic] << 8 | data[after_topic + 1]
    if properties and data[start - 1]:
        return None
    try:
        topic = data[begin + 2 : after_topic].decode()
    except UnicodeDecodeError:
        return None
    return Received(topic, data[start:end], qos, bool(header & 1), mid, now) if topic else None


def converted(message: MQTTMessage, topic: str, now: float) -> Received:
    """Return what paho has decoded, as ours; `topic` is its own, which may raise."""
    properties = message.properties
    return Received(
        topic=topic,
        payload=bytes(message.payload),
        qos=message.qos,
        retained=message.retain,
        mid=message.mid,
        received_at=now,
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation_data=getattr(properties, "CorrelationData", None),
        properties=dict(getattr(properties, "UserProperty", ())) or EMPTY,
    )
