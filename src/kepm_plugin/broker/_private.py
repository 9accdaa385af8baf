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


def take_publish(paho: Paho, take: Callable[[int, bytearray], bool]) -> None:
    """`paho.Client._handle_publish`, `_in_packet`: what paho makes of a PUBLISH costs more than all the rest of it.

    `take` gets the first byte of a packet, and what follows the remaining length; where it returns False paho does what
    it always did.
    """
    handle = paho._handle_publish

    def handle_publish() -> MQTTErrorCode:
        packet = paho._in_packet
        return MQTTErrorCode.MQTT_ERR_SUCCESS if take(packet["command"], packet["packet"]) else handle()

    paho._handle_publish = handle_publish  # type: ignore[method-assign]


def take_puback(paho: Paho, take: Callable[[int, int], None], *, reasons: bool) -> None:
    """`paho.Client._handle_pubackcomp`, `_in_packet`: paho waits for no PUBACK, as what asks for one is sent by us.

    `take` gets packet id and reason code; only MQTT 5 has `reasons`. A packet that is malformed is left to paho.
    """
    handle = paho._handle_pubackcomp

    def handle_pubackcomp(cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = paho._in_packet["packet"]
        length = len(packet)
        if cmd != "PUBACK" or not (length == 2 or (reasons and length > 2)):
            return handle(cmd)
        take(packet[0] << 8 | packet[1], packet[2] if length > 2 else 0)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    paho._handle_pubackcomp = handle_pubackcomp  # type: ignore[method-assign]


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
