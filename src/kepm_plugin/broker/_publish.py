"""From PUBLISH to the framework's message. Pure.

Nearly all of them are plain: QoS 0 or 1, no properties, a topic that is UTF-8. paho makes an object for each with a
table of all properties that there could be, and one to wait for a publication of ours: more work than everything else
that a message takes. So plain ones are decoded here, and only the others come as messages of paho.
"""

from typing import Final

from paho.mqtt.client import MQTTMessage

from ..message import EMPTY, Received

DUP: Final = 0x08
"""The flag, in the first byte of the packet, of what is sent again (MQTT 5.0, section 3.3.1.1)."""


def plain(header: int, body: bytes | bytearray, now: float, *, properties: bool) -> Received | None:
    """Return the message of a PUBLISH; None where it is none of these, or malformed, and so for paho to look at.

    Args:
        header: The first byte of the packet.
        body: What follows the remaining length.
        now: When it was received, in seconds since the epoch.
        properties: Whether the version has properties, MQTT 5.
    """
    qos = header >> 1 & 3
    if qos > 1:
        return None
    try:
        end = 2 + (body[0] << 8 | body[1])
        start, mid = end, 0
        if qos:
            mid = body[end] << 8 | body[end + 1]
            start += 2
        if properties:
            if body[start]:
                return None
            start += 1
        topic = body[2:end].decode()
    except (IndexError, UnicodeDecodeError):
        return None
    if not topic or len(body) < start:
        return None
    return Received(topic, bytes(body[start:]), qos, bool(header & 1), mid, now)


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
