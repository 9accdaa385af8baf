"""The embedded broker model: what MQTTnet's server does by default, in front of either engine."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin.devagent import ControlClient, DropPuback, Duplicate, HalfOpen, Slow
from kepm_plugin.devagent.bodies import Connect, Publish, Will
from kepm_plugin.devagent.border import Border
from kepm_plugin.devagent.delivery import Outgoing
from kepm_plugin.devagent.embedded import Embedded
from kepm_plugin.devagent.packets import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    V5,
    Packet,
    acknowledgement,
    packet_id,
    without_properties,
)
from kepm_plugin.devagent.rights import Rights
from tests.devagent.conftest import Peer, staged, until

EMBEDDED: dict[str, Any] = {
    "broker_model": "embedded",
    "publish": ["P/Events/+", "Nobody", "Will"],
    "subscribe": ["P/Events/+", "Will"],
}


async def flood(sender: Peer, count: int) -> None:
    """Publish a numbered series at QoS 1 and see it acknowledged."""
    for number in range(count):
        sender.send(Publish("P/Events/x", b"%4d" % number, 1, mid=number + 1).encode(sender.version))
    for _ in range(count):
        await sender.expect(PUBACK)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publications_pass_at_every_qos(root: Path, broker: str, qos: int) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        receiver, sender = await stage.peer("a_P"), await stage.peer("b_P")
        assert await receiver.subscribe("P/Events/+", qos=qos) == bytes([qos])
        for number in range(3):
            assert await sender.publish("P/Events/x", b"%d" % number, qos=qos) == b""
            received = await receiver.message()
            assert (received.payload, received.qos, received.mid) == (b"%d" % number, qos, number + 1 if qos else 0)
        await receiver.ping()
        assert stage.agent.deliveries.total["P"] == (3 if qos else 0)


async def test_the_session_goes_with_the_connection_whatever_was_asked(root: Path, broker: str) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        sender = await stage.peer("sender_P")
        for _ in range(2):
            keeper, present, code = await stage.connect("keeper_P", clean=False)
            assert (present, code) == (False, 0)
            await keeper.ping()
            await keeper.subscribe("P/Events/+")
            await sender.publish("P/Events/x", b"unacknowledged")
            assert (await keeper.message(acknowledge=False)).dup is False
            keeper.vanish()
            await stage.lines.wait_for("DISCONNECT: connection lost")
            await sender.publish("P/Events/x", b"meanwhile")
        last, present, _ = await stage.connect("keeper_P", clean=False)
        assert not present
        await last.ping()  # nothing came before the answer
        assert stage.agent.deliveries.acknowledged("P") == ()


async def test_nothing_waits_for_the_clients_acknowledgements(root: Path, broker: str) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        peer, sender = await stage.peer(), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await flood(sender, 300)
        received = [await peer.message(acknowledge=False) for _ in range(300)]
        assert [one.mid for one in received] == list(range(1, 301))
        assert [int(one.payload) for one in received] == list(range(300))
        peer.send(b"".join(acknowledgement(PUBACK, one.mid) for one in received[:200]))
        await peer.ping()
        record = stage.agent.deliveries.acknowledged("P")
        assert [row.mid for row in record] == list(range(1, 201))
        assert record[7].digest == hashlib.sha256(b"   7").digest()


async def test_the_oldest_unread_publications_are_dropped_beyond_a_thousand(root: Path) -> None:
    async with staged(root, "mosquitto", **EMBEDDED) as stage:
        peer, sender = await stage.peer(), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await stage.agent.fault(HalfOpen(plugin="P"))  # takes the older one of the two connections
        await flood(sender, 1_100)
        await until(lambda: stage.agent.deliveries.dropped["P"] == 100)
        page = await asyncio.to_thread(ControlClient.find(root).deliveries, "P")
        assert (page["dropped"], page["sent"]) == (100, 0)


async def test_a_client_that_does_not_read_loses_the_oldest_and_gets_the_newest(
    root: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.outlet.PENDING_MESSAGES", 20)
    async with staged(root, broker, **EMBEDDED) as stage:
        peer, sender = await stage.peer(), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        number = 0
        with anyio.fail_after(15):
            while not stage.agent.deliveries.dropped["P"]:
                await sender.publish("P/Events/x", b"%4d" % number + b"x" * 500_000)
                number += 1
        await sender.publish("P/Events/x", b"last")
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        received = [await peer.message()]
        while received[-1].payload != b"last":
            received.append(await peer.message())
        assert received[0].payload[:4] == b"   0"
        assert len(received) + stage.agent.deliveries.dropped["P"] == number + 1


async def test_nobody_listens_is_said_on_mqtt_5_and_denials_are_hidden(root: Path, broker: str) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        peer = await stage.peer()
        assert await peer.subscribe("Secret/+", "P/Events/+", qos=1) == b"\1\1"
        lonely = b"\x10" if stage.version == 5 else b""
        assert await peer.publish("Nobody") == lonely
        assert await peer.publish("Denied") == b""
        peer.send(Publish("Nobody", b"x", 2, mid=9).encode(peer.version))
        assert (await peer.expect(PUBREC)).body[2:] == lonely
        peer.send(acknowledgement(PUBREL, 9))
        assert packet_id(await peer.expect(PUBCOMP)) == 9
        assert await peer.publish("Denied", qos=2) == b""
        assert stage.agent.traffic.denied == {"P": 3}


async def test_a_publication_at_qos_2_is_dispatched_at_publish_and_again_when_sent_again(
    root: Path, broker: str
) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        receiver, sender = await stage.peer("a_P"), await stage.peer("b_P")
        await receiver.subscribe("P/Events/+", qos=1)
        for dup in (False, True):
            sender.send(Publish("P/Events/x", b"twice", 2, dup=dup, mid=5).encode(sender.version))
            assert packet_id(await sender.expect(PUBREC)) == 5
            assert (await receiver.message()).payload == b"twice"
        sender.send(acknowledgement(PUBREL, 5))
        assert packet_id(await sender.expect(PUBCOMP)) == 5


async def test_the_newer_connection_takes_over_and_mqtt_5_says_so(root: Path, broker: str) -> None:
    async with staged(root, broker, **EMBEDDED) as stage:
        older = await stage.peer(clean=False)
        newer, present, _ = await stage.connect(clean=False)
        assert not present
        if stage.version == 5:
            assert (await older.expect(DISCONNECT)).body[0] == 0x8E
        await older.closed()
        await newer.ping()


async def test_a_refused_client_stays_connected_until_it_leaves(root: Path) -> None:
    async with staged(root, "nats", **EMBEDDED) as stage:
        refusals = (("Q", 4, 2), ("P", 5, 1))
        for client_id, level, expected in refusals:
            peer, _, code = await stage.connect(client_id, version=level)
            assert code == expected
            waiting = asyncio.create_task(peer.packet())
            await (await stage.peer("other_P")).ping()
            assert not waiting.done()
            peer.vanish()
            assert await waiting is None


async def test_a_will_comes_when_the_client_is_silent_for_too_long(root: Path) -> None:
    async with staged(root, "nats", **EMBEDDED) as stage:
        watcher = await stage.peer("watcher_P")
        await watcher.subscribe("Will")
        peer = await stage.raw(level=stage.version)
        connect = Connect(level=stage.version, client_id="P", keep_alive=1, will=Will("Will", b"lost", 1))
        peer.send(connect.encode())
        assert (await watcher.message()).payload == b"lost"
        await stage.lines.wait_for("silent for one and a half times its keep-alive")


async def test_packets_are_tampered_with_in_this_model_too(root: Path) -> None:
    async with staged(root, "mosquitto", **EMBEDDED) as stage:
        peer, sender = await stage.peer(), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await stage.agent.fault(Duplicate(every=2, count=1))
        await stage.agent.fault(DropPuback(direction="from plugin"))
        await flood(sender, 2)
        received = [await peer.message() for _ in range(3)]
        assert [(one.payload, one.dup) for one in received] == [(b"   0", False), (b"   1", False), (b"   1", True)]
        await peer.ping()
        assert [row.mid for row in stage.agent.deliveries.acknowledged("P")] == [one.mid for one in received[1:]]


async def test_a_slow_connection_carries_all_in_order(root: Path) -> None:
    async with staged(root, "nats", **EMBEDDED) as stage:
        peer, sender = await stage.peer(), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await stage.agent.fault(Slow(bytes_per_second=50_000, delay=0.01, seconds=60))
        await flood(sender, 50)
        assert [int((await peer.message()).payload) for _ in range(50)] == list(range(50))


class Case:
    """The model alone."""

    def __init__(self, connect: Connect) -> None:
        rights = Rights(("ok",), ("ok",))
        self.border = Border("P", connect.level, lambda: rights, lambda _: None)
        self.model = Embedded(self.border, connect, lambda _: False)


@pytest.mark.parametrize("level", [4, 5])
def test_what_the_engine_repeats_is_answered_and_not_sent_again(level: int) -> None:
    case = Case(Connect(level=level, client_id="P"))
    first = Publish("ok", b"x", 1, mid=7)
    _, sent = case.model.from_engine(first.packet(level))
    assert isinstance(sent, Outgoing)
    assert sent.publish is not None
    assert sent.publish.mid == 1
    again = Publish("ok", b"x", 1, dup=True, mid=7)
    assert case.model.from_engine(again.packet(level)) == (acknowledgement(PUBACK, 7), None)


def test_the_engine_sees_a_clean_session_without_limits_and_a_long_keep_alive() -> None:
    properties = b"\x11\xff\xff\xff\xff\x21\x00\x05\x22\x00\x01\x26\0\1a\0\1b"
    connect = Connect(level=V5, client_id="P", clean=False, keep_alive=60, properties=properties)
    case = Case(connect)
    seen = case.model.connect(connect)
    assert (seen.clean, seen.keep_alive, seen.properties) == (True, 0xFFFF, b"\x22\x00\x01\x26\0\1a\0\1b")
    assert case.model.patience == 90
    assert Case(Connect(level=4, client_id="P", keep_alive=0)).model.patience is None


def test_properties_of_every_kind_are_kept_as_they_came() -> None:
    properties = b"\x01\x01\x13\x00\x05\x02\0\0\0\1\x03\0\1a\x0b\x81\x01\x26\0\1a\0\1b"
    assert without_properties(properties, ()) == properties
    assert without_properties(properties, {0x02, 0x26}) == b"\x01\x01\x13\x00\x05\x03\0\1a\x0b\x81\x01"


def test_packet_ids_towards_the_engine_are_not_those_of_the_client_and_never_taken_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.embedded.LARGEST_ID", 50)
    case = Case(Connect(level=4, client_id="P"))
    for mid in range(50):
        forward, _ = case.model.from_client(Publish("ok", b"", 1, mid=1).packet(4))
        assert forward[-2:] == (mid + 1).to_bytes(2, "big")
    _, answer = case.model.from_engine(Packet(PUBACK, 0, b"\x00\x09"))
    assert answer == Outgoing(PUBACK, acknowledgement(PUBACK, 1))
    assert case.model.from_engine(Packet(PUBACK, 0, b"\x00\x09")) == (b"", None)
    forward, _ = case.model.from_client(Publish("ok", b"", 1, mid=2).packet(4))
    assert forward[-2:] == b"\x00\x09"
    assert case.model.from_client(Packet(PINGREQ, 0, b"")) == (b"\xc0\x00", b"")
    assert forward[0] >> 4 == PUBLISH
