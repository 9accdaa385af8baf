"""What goes over the wire, packet by packet: reading, acknowledging, publishing, and how it ends."""

import asyncio
import logging
import struct
from typing import Any

import anyio
import pytest

from kepm_plugin.broker import Version
from kepm_plugin.broker._wire import Wire
from kepm_plugin.devagent.ends import reset
from kepm_plugin.errors import BrokerRefused, LinkLost
from kepm_plugin.message import Publication

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def publish(
    version: str,
    topic: bytes,
    payload: bytes = b"",
    *,
    mid: int = 0,
    qos: int = 1,
    dup: bool = False,
    more: bytes = b"",
) -> bytes:
    """Return a PUBLISH; `more` are MQTT 5 properties."""
    body = struct.pack("!H", len(topic)) + topic + (mid.to_bytes(2, "big") if mid else b"")
    body += (bytes([len(more)]) + more if version == "5" else b"") + payload
    assert len(body) < 128
    return bytes([0x30 | dup << 3 | (qos if mid else 0) << 1, len(body)]) + body


def puback(*mids: int) -> bytes:
    return b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids)


# --- reading --------------------------------------------------------------------------------------------------------


@VERSIONS
async def test_what_was_sent_at_once_is_delivered_at_once(scripted: Any, inbox: Any, version: Version) -> None:
    """One record of TLS holds it all: after the first packet `select` has nothing more to say."""
    async with scripted.session(version, inbox) as (link, peer):
        peer.send(
            publish(version, b"a", b"0"),
            b"\xd0\0",  # PINGRESP: no message, and no end of reading either
            publish(version, b"a", b"1", mid=1),
            puback(77),
            publish(version, b"a", b"2", mid=2),
        )
        await inbox.until(3)
        assert [[each.payload for each in batch] for batch in inbox.batches] == [[b"0", b"1", b"2"]]
        link.acknowledge([each.mid for each in inbox.messages])
        await peer.expect(puback(1, 2))


async def test_acknowledgements_one_by_one_are_written_as_one_but_in_their_place_among_others(
    scripted: Any, inbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.send(*(publish("3.1.1", b"a", mid=mid) for mid in range(1, 7)))
        await inbox.until(6)
        written = list[bytes]()
        send = link._wire.send

        def noted(data: bytes) -> int:
            written.append(bytes(data))
            return int(send(data))

        monkeypatch.setattr(link._wire, "send", noted)
        for mid in range(1, 5):
            link.acknowledge([mid])
        published = publish("3.1.1", b"p", b"between")
        link.publish(Publication("p", b"between", qos=0))
        link.acknowledge([5])
        link.acknowledge([6])
        await peer.expect(puback(1, 2, 3, 4) + published + puback(5, 6))
        assert written == [puback(1, 2, 3, 4), published, puback(5, 6)]


async def test_an_acknowledgement_is_sent_before_the_end(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.send(publish("3.1.1", b"a", mid=1))
        await inbox.until(1)
        link.acknowledge([1])
        await link.leave()
        await peer.expect(puback(1) + b"\xe0\0")


async def test_a_long_reading_gives_others_their_turn(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (_, peer):
        peer.send(*(publish("3.1.1", b"a", b"%d" % number) for number in range(1500)))
        await inbox.until(1500)
    assert max(len(batch) for batch in inbox.batches) <= 512
    assert inbox.payloads == [b"%d" % number for number in range(1500)]


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_long_reading_is_no_longer_while_publications_are_in_flight(
    scripted: Any, inbox: Any, qos: int
) -> None:
    """With so many unacknowledged paho would read twenty packets at a time."""
    async with scripted.session("3.1.1", inbox) as (link, peer):
        for _ in range(20):
            link.publish(Publication("p", b"", qos=1))
        link.pause_reading()
        peer.send(*(publish("3.1.1", b"a", b"%d" % mid, mid=mid, qos=qos) for mid in range(1, 1501)))
        await peer.writer.drain()
        link.resume_reading()
        await inbox.until(1500)
    assert max(len(batch) for batch in inbox.batches) <= 512
    assert inbox.payloads == [b"%d" % mid for mid in range(1, 1501)]


async def test_a_long_reading_of_large_messages_ends_after_a_mebibyte(scripted: Any, inbox: Any) -> None:
    payload = b"x" * 16_000
    async with scripted.session("3.1.1", inbox) as (link, peer):
        link.pause_reading()
        for _ in range(200):
            peer.send(scripted.packet(0x30, b"\0\x01a" + payload))
        await peer.writer.drain()
        link.resume_reading()
        await inbox.until(200)
    assert max(len(batch) for batch in inbox.batches) <= (2**20 + 2**16) / len(payload)


async def test_a_packet_may_come_in_pieces(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (_, peer):
        for byte in publish("3.1.1", b"a", b"whole", mid=1):
            peer.send(bytes([byte]))
            await peer.writer.drain()
        [message] = await inbox.until(1)
    assert message.payload == b"whole"


async def test_a_message_of_mqtt_5_keeps_its_properties(scripted: Any, inbox: Any) -> None:
    properties = b"\x08\0\x03r/t\x09\0\x02\x00\xff\x26\0\x01k\0\x01v\x26\0\x02k2\0\x02v2"
    async with scripted.session("5", inbox) as (_, peer):
        peer.send(publish("5", b"a", mid=1, more=properties), publish("5", b"b", mid=2))
        message, plain = await inbox.until(2)
    assert (message.response_topic, message.correlation_data) == ("r/t", b"\0\xff")
    assert dict(message.properties) == {"k": "v", "k2": "v2"}
    assert (plain.response_topic, plain.correlation_data, dict(plain.properties)) == (None, None, {})


@VERSIONS
async def test_a_topic_that_is_not_utf_8_is_acknowledged_counted_and_dropped(
    scripted: Any, inbox: Any, version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted.session(version, inbox) as (link, peer):
        with caplog.at_level(logging.WARNING, "kepm_plugin.broker"):
            peer.send(publish(version, b"\xff\xfe", mid=1), publish(version, b"\xff"), publish(version, b"a", mid=2))
            [message] = await inbox.until(1)
            await peer.expect(puback(1))
        assert (message.topic, link.undecodable) == ("a", 2)
    assert "not UTF-8: ff fe (1 so far)" in caplog.text


# --- acknowledging --------------------------------------------------------------------------------------------------


async def test_what_is_repeated_while_it_is_worked_on_comes_once(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.send(publish("3.1.1", b"a", b"1", mid=1))
        await inbox.until(1)
        peer.send(publish("3.1.1", b"a", b"1", mid=1, dup=True), publish("3.1.1", b"a", b"2", mid=2))
        await inbox.until(2)
        link.acknowledge([1, 2, 2])
        await peer.expect(puback(1, 2))
        peer.send(publish("3.1.1", b"a", b"1", mid=1, dup=True))  # after PUBACK it is another message (4.3.2)
        await inbox.until(3)
        link.acknowledge([1])
        await peer.expect(puback(1))
    assert inbox.payloads == [b"1", b"2", b"1"]


@VERSIONS
async def test_qos_2_is_received_when_it_is_safe_and_delivered_once(
    scripted: Any, inbox: Any, version: Version
) -> None:
    """PUBREC is the promise to keep the message, so it waits for the acknowledgement (MQTT 5.0, 4.3.3)."""
    message = publish(version, b"a", b"1", mid=1, qos=2)
    again = publish(version, b"a", b"1", mid=1, qos=2, dup=True)
    async with scripted.session(version, inbox) as (link, peer):
        peer.send(message, again, publish(version, b"a", b"between", mid=9))
        await inbox.until(2)
        assert inbox.payloads == [b"1", b"between"]
        link.acknowledge([1, 9])
        await peer.expect(b"\x50\x02\0\x01", puback(9))
        peer.send(again)  # our PUBREC was not seen
        await peer.expect(b"\x50\x02\0\x01")
        peer.send(b"\x62\x02\0\x01")
        await peer.expect(b"\x70\x02\0\x01")
        peer.send(publish(version, b"a", b"2", mid=1, qos=2))  # the id is free again
        await inbox.until(3)
    assert inbox.payloads == [b"1", b"between", b"2"]


async def test_a_pubrel_of_an_earlier_connection_is_answered(scripted: Any, inbox: Any) -> None:
    """Else it would hold one of the broker's few places in flight for ever."""
    async with scripted.session("5", inbox) as (_, peer):
        peer.send(b"\x62\x02\0\x05")
        await peer.expect(b"\x70\x02\0\x05")


# --- subscribing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "suback", "code"),
    [("3.1.1", b"\x90\x04\0\x01\x01\x80", 0x80), ("5", b"\x90\x05\0\x01\0\x01\x87", 0x87)],
)
async def test_a_refused_filter_is_named(scripted: Any, inbox: Any, version: Version, suback: bytes, code: int) -> None:
    async with scripted.session(version, inbox) as (link, peer):
        peer.send(suback)
        with anyio.fail_after(5), pytest.raises(BrokerRefused, match=rf"'b/#' .*0x{code:02X}.*manifest") as caught:
            await link.subscribe(["a", "b/#"], 1)
        assert (await peer.packet())[0] == 0x82
        assert "'a'" not in str(caught.value)
    assert caught.value.code == code


async def test_an_answer_to_fewer_filters_than_asked_for_is_a_refusal(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.send(b"\x90\x03\0\x01\x01")
        with anyio.fail_after(5), pytest.raises(BrokerRefused, match="a part of a, b"):
            await link.subscribe(["a", "b"], 1)


async def test_a_lower_qos_than_asked_for_is_said(scripted: Any, inbox: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.send(b"\x90\x04\0\x01\x00\x01")
        with anyio.fail_after(5), caplog.at_level(logging.WARNING, "kepm_plugin.broker"):
            await link.subscribe(["a", "b"], 1)
    assert [record.message for record in caplog.records] == ["the broker grants 'a' at QoS 0 only, asked for 1"]


@pytest.mark.parametrize("verb", ["subscribe", "unsubscribe"])
async def test_an_answer_that_does_not_come_is_a_loss(scripted: Any, inbox: Any, verb: str) -> None:
    async with scripted.session("3.1.1", inbox, ack_timeout=0.05) as (link, peer):
        with anyio.fail_after(5), pytest.raises(LinkLost, match=r"the broker sent no (UN)?SUBACK within 0\.05 s"):
            await (link.subscribe(["a"], 1) if verb == "subscribe" else link.unsubscribe(["a"]))
        with anyio.fail_after(5):
            assert "SUBACK" in await link.lost()
        assert b"\xe0" not in (await peer.rest())[-2:]  # no DISCONNECT: the will shall be published


async def test_a_loss_ends_the_waiting_for_an_answer(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox) as (link, peer):
        peer.writer.close()
        with anyio.fail_after(5), pytest.raises(LinkLost, match="the broker closed the connection"):
            await link.subscribe(["a"], 1)
        assert link.ending == "closed"


# --- publishing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(("version", "properties"), [("5", b"\x05\x09\0\x02id"), ("3.1.1", b"")])
async def test_correlation_data_needs_mqtt_5(
    scripted: Any, inbox: Any, version: Version, properties: bytes, qos: int
) -> None:
    async with scripted.session(version, inbox) as (link, peer):
        link.publish(Publication("a", b"x", qos=qos, correlation_data=b"id"))
        body = b"\0\x01a" + (b"\0\x01" if qos else b"") + properties + b"x"
        await peer.expect(bytes([0x30 | qos << 1, len(body)]) + body)


@VERSIONS
async def test_publications_are_sent_in_order_whatever_their_qos_and_size(
    scripted: Any, inbox: Any, version: Version
) -> None:
    sent = [(1, 1), (1, 1), (0, 1), (1, 20_000), (1, 1), (2, 1), (1, 9_000), (1, 9_000), (1, 200_000), (1, 1)]
    async with scripted.session(version, inbox) as (link, peer):
        for number, (qos, size) in enumerate(sent):
            link.publish(Publication(f"t{number}", b"x" * size, qos=qos, retain=number == 4))
        for number, (qos, size) in enumerate(sent):
            header, body = await peer.packet()
            assert (header, body[2:4]) == (0x30 | qos << 1 | (number == 4), b"t%d" % number)
            assert body[4:] == (
                ((number + 1).to_bytes(2, "big") if qos else b"") + (b"\0" if version == "5" else b"") + b"x" * size
            )
        link.publish(Publication("last", b"", qos=1))
        await link.leave()
        assert [(await peer.packet())[0] for _ in range(2)] == [0x32, 0xE0]


@pytest.mark.parametrize(("size", "joined"), [(100, 20), (5_000, 3), (20_000, 1)])
async def test_what_is_published_in_one_turn_is_one_write_as_far_as_a_record_of_tls_has_room(
    scripted: Any, inbox: Any, monkeypatch: pytest.MonkeyPatch, size: int, joined: int
) -> None:
    written: list[int] = []
    send = Wire.send

    def counted(wire: Wire, data: bytes) -> int:
        written.append(len(data))
        return send(wire, data)

    async with scripted.session("5", inbox) as (link, peer):
        monkeypatch.setattr(Wire, "send", counted)
        for _ in range(20):
            link.publish(Publication("a", b"x" * size, qos=1))
        packets = [await peer.packet() for _ in range(20)]
    around = 2 if size < 122 else 3 if size < 16_378 else 4
    assert written[0] == joined * (around + len(packets[0][1]))
    assert len(packets[0][1]) == 2 + 1 + 2 + 1 + size


@VERSIONS
async def test_each_confirmation_is_told_once(scripted: Any, inbox: Any, version: Version) -> None:
    done: list[int] = []
    reason = b"\x40\x09\0\x03\0\x05\x1f\0\x02ok" if version == "5" else puback(3)  # with a reason string
    async with scripted.session(version, inbox) as (link, peer):
        for number in range(1, 5):
            link.publish(Publication("a", b"", qos=2 if number == 2 else 1), lambda number=number: done.append(number))
        peer.send(puback(4), puback(1), puback(1), puback(77), reason, b"\x50\x02\0\x02", b"\x70\x02\0\x02")
        peer.send(publish(version, b"last"))
        await inbox.until(1)
    assert done == [4, 1, 3, 2]


async def test_a_denied_publication_is_acknowledged_and_said_once_for_each_topic(
    scripted: Any, inbox: Any, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    async with scripted.session("5", inbox) as (link, peer):
        with caplog.at_level(logging.WARNING, "kepm_plugin.broker"):
            for topic in ("KeeperLogger", "KeeperLogger", "Other"):
                link.publish(Publication(topic, b"", qos=1), lambda topic=topic: done.append(topic))
            link.publish(Publication("Fine", b"", qos=1))
            peer.send(*(b"\x40\x03" + mid.to_bytes(2, "big") + b"\x87" for mid in (1, 2, 3)), puback(4))
            peer.send(publish("5", b"last"))
            await inbox.until(1)
    assert done == ["KeeperLogger", "KeeperLogger", "Other"]
    assert [next(iter(record.args or ())) for record in caplog.records] == ["KeeperLogger", "Other"]
    assert "Not authorized (0x87)" in caplog.text


async def test_publications_are_not_acknowledged_by_a_loss(scripted: Any, inbox: Any) -> None:
    done: list[int] = []
    async with scripted.session("3.1.1", inbox) as (link, peer):
        link.publish(Publication("a", b"", qos=1), lambda: done.append(1))
        await peer.packet()
        peer.writer.close()
        with anyio.fail_after(5):
            await link.lost()
        with pytest.raises(LinkLost, match=r"cannot publish on 'a': the broker closed"):
            link.publish(Publication("a", b"", qos=1), lambda: done.append(2))
    assert done == []


async def test_a_packet_id_that_is_still_in_use_is_a_loss(scripted: Any, inbox: Any) -> None:
    """After 65,535 publications the ids begin anew; over the next connection what was stuck is sent again."""
    done: list[str] = []
    async with scripted.session("3.1.1", inbox) as (link, peer):
        link.publish(Publication("a", b"", qos=1), lambda: done.append("stuck"))
        link._paho._last_mid = 0
        link.publish(Publication("a", b"", qos=0), lambda: done.append("written"))
        peer.send(publish("3.1.1", b"last"))
        await inbox.until(1)
        assert done == ["written"]
        link._paho._last_mid = 0
        with pytest.raises(LinkLost, match="unacknowledged until its packet id was needed again"):
            link.publish(Publication("a", b"", qos=1), lambda: done.append("never"))
        with anyio.fail_after(5):
            assert "packet id" in await link.lost()
            await peer.rest()
    assert done == ["written"]


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "packets", "reason"),
    [
        ("5", b"\xe0\x02\x8e\0", "another client connected with this client id, Session taken over (0x8E)"),
        ("5", b"\xe0\x02\x8b\0", "the broker ended the connection: Server shutting down (0x8B)"),
        ("5", b"\xe0\0", "the broker ended the connection"),
        ("5", b"\xf0\0", "the broker sent what is not MQTT"),
        ("3.1.1", b"\xe0\0", "the broker sent what is not MQTT"),
        ("3.1.1", b"\x30\x01a", "the broker sent what is not MQTT"),
        ("3.1.1", b"\x40\x03\0\x01\0", "the broker sent what is not MQTT"),
        ("5", b"\x40\x01\0", "the broker sent what is not MQTT"),
    ],
)
async def test_the_reason_of_a_loss_is_in_plain_words(
    scripted: Any, inbox: Any, version: Version, packets: bytes, reason: str
) -> None:
    async with scripted.session(version, inbox) as (link, peer):
        peer.send(publish(version, b"a", b"before"), packets)
        with anyio.fail_after(5):
            assert reason in await link.lost()
        assert link.ending == ("taken over" if "another client" in reason else "broken")
    assert inbox.payloads == [b"before"]  # what came before is not lost with the connection


@VERSIONS
async def test_a_reset_is_a_loss(scripted: Any, inbox: Any, version: Version) -> None:
    async with scripted.session(version, inbox) as (link, peer):
        reset(peer.writer)
        with anyio.fail_after(5):
            assert "connection" in await link.lost()
        assert link.ending == "reset"


async def test_a_broker_that_answers_no_ping_is_lost(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox, keep_alive=1) as (link, peer):
        await peer.expect(b"\xc0\0")
        with anyio.fail_after(5):
            assert await link.lost() == "the broker answered no ping for 1 s"


async def test_a_ping_keeps_the_connection(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox, keep_alive=1) as (_, peer):
        await peer.expect(b"\xc0\0")
        peer.send(b"\xd0\0")
        await peer.expect(b"\xc0\0")


async def test_a_pause_is_no_missed_ping(scripted: Any, inbox: Any) -> None:
    ping = b"\xc0\0"
    async with scripted.session("3.1.1", inbox, keep_alive=1) as (link, peer):
        await peer.expect(ping)
        link.pause_reading()  # Whatever answers there are, paho does not see them.
        await peer.expect(ping * 5)
        link.resume_reading()
        await peer.expect(ping)
        peer.send(b"\xd0\0" * 7)
        await peer.expect(ping)


async def test_a_loss_shows_in_a_pause_too(scripted: Any, inbox: Any) -> None:
    async with scripted.session("3.1.1", inbox, keep_alive=1) as (link, peer):
        link.pause_reading()
        peer.writer.transport.abort()
        with anyio.fail_after(5):
            assert "connection" in await link.lost()


async def test_an_answer_that_is_not_read_is_not_late(scripted: Any, inbox: Any) -> None:
    async with (
        scripted.session("3.1.1", inbox, ack_timeout=0.1, keep_alive=1) as (link, peer),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(link.subscribe, ["a"], 1, name="subscribe")
        await anyio.wait_all_tasks_blocked()
        link.pause_reading()
        tasks.start_soon(link.unsubscribe, ["b"], name="unsubscribe")
        assert [(await peer.packet())[0] for _ in range(3)] == [0x82, 0xA2, 0xC0]  # the ping: 0.25 s later
        peer.send(b"\x90\x03\0\x01\x01", b"\xb0\x02\0\x02")
        link.resume_reading()


async def test_an_error_in_the_library_is_a_loss_and_reaches_the_loops_handler(
    scripted: Any, inbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[Any] = []

    def explode() -> None:
        raise ZeroDivisionError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: caught.append(context.get("exception")))
    async with scripted.session("3.1.1", inbox) as (link, peer):
        monkeypatch.setattr(link._paho, "loop_read", explode)
        peer.send(b"\xd0\0")  # PINGRESP, which is paho's to read
        with anyio.fail_after(5):
            assert "MQTT library failed" in await link.lost()
            assert await peer.rest() == b""
    loop.set_exception_handler(None)
    assert [type(each) for each in caught] == [ZeroDivisionError]
