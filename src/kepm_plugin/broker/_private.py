"""What is used of aiomqtt and paho that is not their public interface: each name once, with the reason.

paho is pinned to the version in which these were read, and `tests/broker/test_private_names.py` holds each of them to
what is assumed here.
"""
# pyright: reportPrivateUsage=false

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import aiomqtt
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MessageType, MQTTErrorCode

if TYPE_CHECKING:
    from ._wire import Wire


def paho_of(client: aiomqtt.Client) -> Paho:
    """`aiomqtt.Client._client`: paho's hooks are public, but aiomqtt does not show the client that has them."""
    return client._client


def use_wire(paho: Paho, wire: "Wire") -> None:
    """`paho.Client._create_socket`: its own way to connect blocks a thread that cannot be stopped (see `_wire`)."""
    paho._create_socket = lambda: wire  # type: ignore[method-assign]  # pyright: ignore[reportAttributeAccessIssue]


def leave_acknowledging(paho: Paho, on_publish_2: Callable[[int], None]) -> None:
    """`paho.Client._send_puback`, `_send_pubrec`: acknowledging is ours, when the message is safe.

    The public `manual_ack` does not do: with it PUBREC is still sent at once, so that a QoS 2 message is in memory
    alone, and a PUBREL for a message of an earlier connection is never answered.
    """

    def puback(mid: int) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def pubrec(mid: int) -> MQTTErrorCode:
        on_publish_2(mid)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    paho._send_puback = puback  # type: ignore[method-assign]
    paho._send_pubrec = pubrec  # type: ignore[method-assign]


def take_packets(paho: Paho, take: Callable[[int, bytes, int, int], bool]) -> None:
    """`paho.Client._handle_publish`, `_handle_pubackcomp`, `_in_packet`: what paho does for these is most of its work.

    `take` gets the first byte of a PUBLISH, PUBACK or PUBCOMP, and what the body is in, with its begin and end; where
    it returns False paho does what it always did.
    """
    publish, pubackcomp = paho._handle_publish, paho._handle_pubackcomp

    def taken() -> bool:
        packet = paho._in_packet
        body = bytes(packet["packet"])
        return take(packet["command"], body, 0, len(body))

    def handle_publish() -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS if taken() else publish()

    def handle_pubackcomp(cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        return MQTTErrorCode.MQTT_ERR_SUCCESS if taken() else pubackcomp(cmd)

    paho._handle_publish = handle_publish  # type: ignore[method-assign]
    paho._handle_pubackcomp = handle_pubackcomp  # type: ignore[method-assign]


def between_packets(paho: Paho) -> bool:
    """`paho.Client._in_packet`: while paho has read a part of a packet, the rest is its own."""
    return not paho._in_packet["command"]


def note_received(paho: Paho, now: float) -> None:
    """`paho.Client._last_bytes_received`: when the broker was last heard of, on the monotonic clock.

    paho notes it for what it reads itself. Where a ping's answer is behind much else, it is by this that the broker is
    known to be there.
    """
    paho._last_bytes_received = now


def next_mid(paho: Paho) -> int:
    """`paho.Client._mid_generate`: packet ids that paho counts on, from 1 to 65,535 and over again."""
    return paho._mid_generate()


def held(paho: Paho, mid: int) -> MQTTMessage | None:
    """`paho.Client._in_messages`: a QoS 2 message waits there from PUBLISH to PUBREL; we want it at PUBLISH."""
    return paho._in_messages.get(mid)


def queue_packets(paho: Paho, packets: bytes) -> None:
    """`paho.Client._packet_queue`: many packets as one buffer; PUBREC and PINGREQ have no public call."""
    paho._packet_queue(MessageType.PUBACK, packets, 0, 1)


def forget_ping(paho: Paho) -> None:
    """`paho.Client._ping_t`: when the ping was sent whose answer is awaited.

    While nothing is read no answer is seen, and that says nothing of the broker.
    """
    paho._ping_t = 0.0


def topic_bytes(message: MQTTMessage) -> bytes:
    """`paho.MQTTMessage._topic`: what to show of a topic that is not UTF-8; the public `topic` raises."""
    return message._topic
