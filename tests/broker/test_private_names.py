"""Each private name of aiomqtt and paho that `broker` uses does what `broker/_private.py` assumes of it."""
# pyright: reportPrivateUsage=false

import struct
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import aiomqtt
import pytest
from paho.mqtt import client as client_module
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from kepm_plugin.broker import _private

PUBLISH_1 = b"\x32\x06\0\x01a\0\x07x"
PUBLISH_2 = b"\x34\x06\0\x01a\0\x08x"
PUBREL = b"\x62\x02\0\x08"


class Wire:
    """A socket that is two byte strings."""

    def __init__(self) -> None:
        self.incoming, self.outgoing, self.closed = b"", b"", False

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        piece, self.incoming = self.incoming[:size], self.incoming[size:]
        return piece

    def send(self, data: bytes) -> int:
        self.outgoing += data
        return len(data)

    def setblocking(self, flag: bool) -> None:
        assert flag is False

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


def later(*_: object) -> None:
    """An event loop's way: nothing is written before it calls `loop_write`."""


@pytest.fixture
def paho(wire: Any) -> Iterator[Paho]:
    """A connected client of paho over that socket, all of whose outgoing packets have been read."""
    client = Paho(CallbackAPIVersion.VERSION2, client_id="P")
    client.on_socket_register_write = later
    _private.use_wire(client, wire)
    client.connect("127.0.0.1", 1)
    client.loop_write()
    assert wire.outgoing[:1] == b"\x10"
    read(client, wire, b"\x20\x02\0\0")
    wire.outgoing = b""
    yield client
    client.disconnect()
    client.loop_write()
    assert wire.closed


def read(paho: Paho, wire: Any, data: bytes) -> bytes:
    """Let paho read, and return what it writes then."""
    wire.incoming, wire.outgoing = data, b""
    while wire.incoming:
        paho.loop_read()
    paho.loop_write()
    return bytes(wire.outgoing)


def test_paho_is_the_version_whose_private_names_were_read() -> None:
    assert version("paho-mqtt") == "2.2.0"


async def test_aiomqtt_has_pahos_client(anyio_backend: str) -> None:
    assert isinstance(_private.paho_of(aiomqtt.Client("127.0.0.1")), Paho)


def test_paho_uses_the_socket_that_it_is_given(paho: Paho, wire: Any) -> None:
    assert paho.socket() is wire
    assert paho.is_connected()


def test_paho_acknowledges_unless_it_is_told_not_to(paho: Paho, wire: Any) -> None:
    assert read(paho, wire, PUBLISH_1) == b"\x40\x02\0\x07"
    assert read(paho, wire, PUBLISH_2) == b"\x50\x02\0\x08"
    _private.leave_acknowledging(paho, lambda mid: None)
    assert read(paho, wire, PUBLISH_1) == b""
    assert read(paho, wire, PUBLISH_2) == b""


def test_a_publish_is_offered_first_and_is_pahos_where_it_is_not_taken(paho: Paho, wire: Any) -> None:
    offered: list[tuple[int, bytes]] = []
    seen: list[bytes] = []
    paho.on_message = lambda client, userdata, message: seen.append(bytes(message.payload))

    def take(header: int, data: bytes, begin: int, end: int) -> bool:
        offered.append((header, data[begin:end]))
        return data.endswith(b"x")

    _private.take_packets(paho, take)
    assert read(paho, wire, PUBLISH_1 + PUBLISH_1[:-1] + b"y") == b"\x40\x02\0\x07"
    assert offered == [(0x32, b"\0\x01a\0\x07x"), (0x32, b"\0\x01a\0\x07y")]
    assert seen == [b"y"]


def test_between_two_packets_paho_has_read_nothing_of_the_next_one(paho: Paho, wire: Any) -> None:
    for end in range(1, len(PUBLISH_1)):
        assert _private.between_packets(paho)
        read(paho, wire, PUBLISH_1[:end])
        assert not _private.between_packets(paho)
        read(paho, wire, PUBLISH_1[end:])
    assert _private.between_packets(paho)


def test_who_was_heard_of_need_not_have_answered_a_ping(paho: Paho, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(client_module, "time_func", lambda: now)
    paho._last_msg_out = paho._last_bytes_received = now
    now += paho.keepalive
    paho.loop_misc()  # sends a ping
    for heard_of in (True, False):
        now += paho.keepalive - 1
        if heard_of:
            _private.note_received(paho, now)
        now += 1
        paho.loop_misc()
        assert paho.is_connected() is heard_of


def test_paho_takes_the_monotonic_clock() -> None:
    assert client_module.time_func is time.monotonic


def test_a_qos_2_message_is_announced_then_held_then_given_out_at_pubrel(paho: Paho, wire: Any) -> None:
    seen: list[object] = []
    paho.on_message = lambda client, userdata, message: seen.append(message)
    _private.leave_acknowledging(paho, lambda mid: seen.append((mid, _private.held(paho, mid))))
    read(paho, wire, PUBLISH_2)
    assert seen == [(8, None)]
    message = _private.held(paho, 8)
    assert message is not None
    assert (message.topic, message.payload, message.qos) == ("a", b"x", 2)
    assert read(paho, wire, PUBREL) == b"\x70\x02\0\x08"
    assert seen[1:] == [message]
    assert _private.held(paho, 8) is None


def test_pubrel_is_answered_even_where_nothing_is_held(paho: Paho, wire: Any) -> None:
    _private.leave_acknowledging(paho, lambda mid: None)
    assert read(paho, wire, PUBREL) == b"\x70\x02\0\x08"


def test_packets_are_written_as_they_are_and_in_their_order(paho: Paho, wire: Any) -> None:
    joined = b"".join(b"\x40\x02" + struct.pack("!H", mid) for mid in range(1, 600))
    _private.queue_packets(paho, joined)
    paho.publish("a", b"x")
    assert wire.outgoing == b""
    paho.loop_write()
    assert wire.outgoing == joined + b"\x30\x04\0\x01ax"


@pytest.mark.parametrize("packet", [b"\x40\x02\0\1", b"\x70\x02\0\1"], ids=["PUBACK", "PUBCOMP"])
@pytest.mark.parametrize("taken", [True, False])
def test_a_confirmation_is_offered_first_and_is_pahos_where_it_is_not_taken(
    paho: Paho, wire: Any, packet: bytes, taken: bool
) -> None:
    offered: list[tuple[int, bytes]] = []
    done: list[int] = []
    paho.on_publish = lambda client, userdata, mid, code, properties: done.append(mid)

    def take(header: int, data: bytes, begin: int, end: int) -> bool:
        offered.append((header, data[begin:end]))
        return taken

    _private.take_packets(paho, take)
    assert paho.publish("a", b"", qos=1 if packet[0] == 0x40 else 2).mid == 1
    read(paho, wire, packet)
    assert offered == [(packet[0], b"\0\1")]
    assert done == ([] if taken else [1])


def test_paho_and_we_count_packet_ids_by_one_number(paho: Paho) -> None:
    paho._last_mid = 65_533
    assert (_private.next_mid(paho), paho.publish("a", b"", qos=2).mid, _private.next_mid(paho)) == (65_534, 65_535, 1)


def test_a_ping_that_is_forgotten_needs_no_answer(paho: Paho, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(client_module, "time_func", lambda: now)
    paho._last_msg_out = paho._last_bytes_received = now
    for forgotten in (True, False):
        now += paho.keepalive
        paho.loop_misc()  # sends a ping
        assert paho._ping_t == now
        if forgotten:
            _private.forget_ping(paho)
        now += paho.keepalive
        paho.loop_misc()
        assert paho.is_connected() is forgotten
        _private.forget_ping(paho)


def test_the_bytes_of_a_topic_that_is_not_utf_8() -> None:
    message = MQTTMessage(topic=b"\xff")
    assert _private.topic_bytes(message) == b"\xff"
    with pytest.raises(UnicodeDecodeError):
        _ = message.topic
