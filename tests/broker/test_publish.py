"""A plain PUBLISH is what paho takes it for; everything else is left to paho. What we publish is what paho reads."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt import _packet  # pyright: ignore[reportPrivateUsage]  a second opinion
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from kepm_plugin.broker._publish import plain, publish_packet
from kepm_plugin.message import Publication

VERSIONS = {False: MQTTProtocolVersion.MQTTv311, True: MQTTProtocolVersion.MQTTv5}


def made(topic: bytes, middle: bytes, payload: bytes) -> bytes:
    return len(topic).to_bytes(2, "big") + topic + middle + payload


TOPICS = st.text(max_size=4).map(str.encode) | st.binary(max_size=4)
MIDDLES = st.sampled_from([b"", b"\0", b"\0\7", b"\0\7\0", b"\0\7\3\x02\0\0"])


@given(
    header=st.integers(0x30, 0x3F),
    body=st.binary(max_size=12) | st.builds(made, TOPICS, MIDDLES, st.binary(max_size=4)),
    properties=st.booleans(),
)
@example(header=0x30, body=b"\0\1a", properties=False)
@example(header=0x32, body=b"\0\1a\0\7", properties=False)
@example(header=0x33, body=b"\0\1a\0\7\0", properties=True)
def test_what_is_taken_is_what_paho_makes_of_it(header: int, body: bytes, properties: bool) -> None:
    received = plain(header, b"before" + body + b"after", 6, 6 + len(body), 4e9, properties=properties)
    if received is None:
        return
    theirs = _packet.decode_publish(header, bytearray(body), VERSIONS[properties])
    assert (received.topic.encode(), received.payload) == (theirs.topic, bytes(theirs.payload))
    assert (received.qos, received.retained, received.mid) == (theirs.qos, theirs.retain, theirs.mid)
    assert received.received_at == 4e9


@pytest.mark.parametrize(
    ("header", "body", "properties"),
    [
        (0x30, b"\0\1ax", False),
        (0x30, b"\0\1a\0x", True),
        (0x32, b"\0\1a\0\7x", False),
        (0x3B, b"\0\1a\0\7\0x", True),
        (0x30, b"\0\1a", False),
    ],
    ids=["QoS 0", "QoS 0, MQTT 5", "QoS 1", "QoS 1, MQTT 5, again and retained", "no payload"],
)
def test_nearly_all_of_them_are_plain(header: int, body: bytes, properties: bool) -> None:
    received = plain(header, body, 0, len(body), 1.0, properties=properties)
    assert received is not None
    assert (received.topic, received.payload) == ("a", body[3 + 2 * received.qos + properties :])
    assert (received.mid, received.retained) == (7 if received.qos else 0, header == 0x3B)


@pytest.mark.parametrize(
    ("header", "body", "properties"),
    [
        (0x34, b"\0\1a\0\7x", False),
        (0x30, b"\0\1a\3\x02\0\0x", True),
        (0x30, b"\0\1\xffx", False),
        (0x30, b"\0\0\3\x23\0\1", True),
    ],
    ids=["QoS 2", "properties", "not UTF-8", "alias"],
)
def test_pahos_are_left_to_it(header: int, body: bytes, properties: bool) -> None:
    assert plain(header, body, 0, len(body), 1.0, properties=properties) is None


@pytest.mark.parametrize("properties", [False, True])
@pytest.mark.parametrize(
    ("header", "body"),
    [(0x30, b""), (0x30, b"\0"), (0x30, b"\0\2a"), (0x32, b"\0\1a"), (0x32, b"\0\1a\0")],
    ids=["empty", "half a length", "half a topic", "no packet id", "half a packet id"],
)
def test_so_are_malformed_ones(header: int, body: bytes, properties: bool) -> None:
    assert plain(header, body, 0, len(body), 1.0, properties=properties) is None
    with pytest.raises(MalformedPacket):
        _packet.decode_publish(header, bytearray(body), VERSIONS[properties])


SIZES = st.sampled_from([0, 1, 100, 121, 122, 127, 128, 16_370, 16_383, 16_384, 2_097_151])


@given(
    topic=st.text(st.characters(blacklist_characters="+#", blacklist_categories=["Cs"]), min_size=1, max_size=200),
    size=SIZES,
    mid=st.integers(1, 65_535),
    retain=st.booleans(),
    correlation=st.none() | st.binary(max_size=300),
    properties=st.booleans(),
)
def test_paho_reads_what_is_published(
    topic: str, size: int, mid: int, retain: bool, correlation: bytes | None, properties: bool
) -> None:
    publication = Publication(topic, b"x" * size, correlation_data=correlation)
    packet = publish_packet(publication, mid=mid, retain=retain, properties=properties)
    end = next(index for index in range(1, 5) if packet[index] < 128) + 1
    length = sum((byte & 127) << 7 * index for index, byte in enumerate(packet[1:end]))
    assert length == len(packet) - end
    theirs = _packet.decode_publish(packet[0], bytearray(packet[end:]), VERSIONS[properties])
    assert (theirs.topic.decode(), bytes(theirs.payload), theirs.qos, theirs.retain, theirs.dup, theirs.mid) == (
        topic,
        publication.payload,
        1,
        retain,
        False,
        mid,
    )
    if properties:
        assert getattr(theirs.properties, "CorrelationData", None) == correlation


@pytest.mark.parametrize(
    "publication",
    [
        Publication("", b""),
        Publication("a/+", b""),
        Publication("#", b""),
        Publication("x" * 65_536, b""),
        Publication("a", b"", correlation_data=bytes(65_536)),
        Publication("a", bytes(268_435_455)),
    ],
    ids=["no topic", "a level of any name", "any levels", "long topic", "long correlation data", "long payload"],
)
def test_what_mqtt_cannot_send_is_an_error(publication: Publication) -> None:
    with pytest.raises(ValueError, match=r"MQTT can send|can be published"):
        publish_packet(publication, mid=1, retain=False, properties=True)
