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
