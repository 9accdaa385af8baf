"""The packets that the gate reads and writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.devagent.bodies import (
    BAD_CLIENT_ID,
    Connect,
    Publish,
    Suback,
    Subscribe,
    Will,
    connack,
    disconnect,
    read_connack,
    read_unsubscribe,
    unsubscribe,
)
from kepm_plugin.devagent.packets import (
    CONNACK,
    CONNECT,
    PINGREQ,
    PUBLISH,
    PUBREL,
    Cursor,
    Packet,
    Splitter,
    acknowledgement,
    packet_id,
    property_list,
    read_properties,
    varint,
)

levels = st.sampled_from([4, 5])
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
topics = texts.filter(lambda text: bool(text) and "+" not in text and "#" not in text)
mids = st.integers(1, 65535)


def only(data: bytes) -> Packet:
    (packet,) = Splitter().feed(data)
    assert packet.encode() == data
    return packet


@given(st.lists(st.builds(Packet, st.just(PUBLISH), st.integers(0, 15), st.binary(max_size=300))), st.data())
def test_a_stream_is_split_into_the_same_packets_however_it_is_cut(packets: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(packet.encode() for packet in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter = Splitter()
    found: list[Packet] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[begin:end])
    assert found == packets


@given(
    st.builds(
        Connect,
        level=levels,
        client_id=texts,
        clean=st.booleans(),
        keep_alive=st.integers(0, 65535),
        will=st.none() | st.builds(Will, topics, st.binary(max_size=20), st.integers(0, 2), st.booleans()),
        username=st.none() | texts,
        password=st.none() | st.binary(max_size=20),
    )
)
def test_connect_is_read_as_it_was_written(connect: Connect) -> None:
    assert Connect.read(only(connect.encode())) == connect


def test_connect_keeps_its_properties_when_the_credential_is_replaced() -> None:
    will = Will("P/Status", b"gone", 1, True, b"\x18\x00\x00\x00\x05")
    connect = Connect(level=5, client_id="P", will=will, username="me", password=b"mine", properties=b"\x21\x00\x14")
    forwarded = Connect.read(only(connect.with_credential(("gate", "secret")).encode()))
    assert (forwarded.username, forwarded.password) == ("gate", b"secret")
    assert (forwarded.will, forwarded.properties) == (will, b"\x21\x00\x14")
    assert connect.with_credential(None).username is None


@given(st.builds(Publish, topics, st.binary(max_size=50), st.just(0), st.booleans()), levels)
def test_publish_at_qos_0_is_read_as_it_was_written(publish: Publish, level: int) -> None:
    assert Publish.read(only(publish.encode(level)), level) == publish


@given(
    st.builds(Publish, topics, st.binary(max_size=50), st.sampled_from([1, 2]), st.booleans(), st.booleans(), mids),
    levels,
)
def test_publish_with_an_id_is_read_as_it_was_written(publish: Publish, level: int) -> None:
    assert Publish.read(only(publish.encode(level)), level) == publish


@given(mids, st.lists(st.tuples(texts, st.integers(0, 2)), min_size=1, max_size=4), levels)
def test_subscriptions_and_their_answers_are_read_as_they_were_written(
    mid: int, filters: list[tuple[str, int]], level: int
) -> None:
    subscribe = Subscribe(mid, tuple(filters))
    assert Subscribe.read(only(subscribe.encode(level)), level) == subscribe
    answer = Suback(mid, bytes(options for _, options in filters))
    assert Suback.read(only(answer.encode(level)), level) == answer
    names = tuple(name for name, _ in filters)
    assert read_unsubscribe(only(unsubscribe(mid, names, level)), level) == (mid, names)


def test_short_packets_have_the_bytes_of_the_standard() -> None:
    assert acknowledgement(PUBREL, 7) == b"\x62\x02\x00\x07"
    assert packet_id(only(acknowledgement(PUBREL, 7))) == 7
    assert connack(4, BAD_CLIENT_ID) == b"\x20\x02\x00\x02"
    assert connack(5, BAD_CLIENT_ID) == b"\x20\x03\x00\x85\x00"
    assert read_connack(only(connack(5, session_present=True))) == (True, 0)
    assert disconnect() == b"\xe0\x00"
    assert disconnect(0x8E) == b"\xe0\x01\x8e"
    assert Packet(PINGREQ, 0, b"").name == "PINGREQ"


def test_properties_of_every_type_are_read() -> None:
    encoded = bytes.fromhex("0101 210014 1100000e10 0300 0161 0b8001 260001610001 62".replace(" ", ""))
    assert list(read_properties(encoded)) == [
        (0x01, 1),
        (0x21, 20),
        (0x11, 3600),
        (0x03, b"a"),
        (0x0B, 128),
        (0x26, b"\0\1a\0\1b"),
    ]
    assert property_list(encoded, 4) == b""


@given(st.integers(0, 268_435_455))
def test_variable_byte_integers_are_read_as_they_were_written(value: int) -> None:
    assert Cursor(varint(value)).varint() == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("00 00", "begins no MQTT packet"),
        ("82 ff ff ff ff", "more than four bytes"),
        ("80 00", "begins no MQTT packet"),
        ("30 ff ff ff 7f", "the limit is"),
    ],
)
def test_a_stream_that_is_no_mqtt_is_refused(data: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Splitter().feed(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Packet(PUBLISH, 6, b"\0\1a"), "QoS 3"),
        (Packet(PUBLISH, 0, b"\0\1+"), "no topic name"),
        (Packet(PUBLISH, 0, b"\0\0x"), "no topic name"),
        (Packet(PUBLISH, 0, b"\0\5a"), "ends too early"),
        (Packet(PUBLISH, 0, b"\0\1\xff"), "utf-8"),
        (Packet(PUBLISH, 0, b"\0\1\0"), "NUL"),
    ],
)
def test_a_malformed_publication_is_refused(packet: Packet, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Publish.read(packet, 4)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\0\4HTTP\4\2\0\0", "another protocol"),
        (b"\0\4MQTT\4\3\0\0\0\1P", "reserved flag"),
        (b"\0\4MQTT\5\2\0\0\1\x7f\0\1P", "unknown property"),
        (b"\0\4MQTT\5\2\0\0\xff\xff\xff\xff\xff", "more than four bytes"),
    ],
)
def test_a_malformed_connect_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Connect.read(Packet(CONNECT, 0, body))


def test_other_malformed_packets_are_refused() -> None:
    with pytest.raises(ValueError, match="without a filter"):
        Subscribe.read(Packet(8, 2, b"\0\1"), 4)
    with pytest.raises(ValueError, match="unknown property"):
        list(read_properties(b"\x7f"))
    with pytest.raises(ValueError, match="do not fit"):
        Publish("a" * 70_000, b"").encode(4)
    with pytest.raises(ValueError, match="ends too early"):
        read_connack(Packet(CONNACK, 0, b"\0"))


def test_of_an_unknown_protocol_level_only_the_level_is_read() -> None:
    assert Connect.read(Packet(CONNECT, 0, b"\0\6MQIsdp\3\2\0\0\0\1P")).level == 3
    assert Connect.read(Packet(CONNECT, 0, b"\0\4MQTT\6")).level == 6
