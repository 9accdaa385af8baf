"""The gate over both engines, through the connections of a process that the agent launched."""

from pathlib import Path

import anyio
import pytest

from kepm_plugin.devagent.bodies import Connect, Publish, Subscribe, Will
from kepm_plugin.devagent.likeness import Likeness
from kepm_plugin.devagent.packets import CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBLISH, SUBACK, Packet
from tests.devagent.conftest import Peer, staged

PUBLISH_ANY = ["P/Events/+", "Will"]
SUBSCRIBE_ANY = ["P/Events/+", "Will"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publications_pass_at_every_qos(root: Path, broker: str, qos: int) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        receiver, sender = await stage.peer("a_P"), await stage.peer("b_P")
        assert await receiver.subscribe("P/Events/+", qos=qos) == bytes([qos])
        await sender.publish("P/Events/x", b"payload", qos=qos)
        received = await receiver.message()
        assert (received.topic, received.payload, received.qos) == ("P/Events/x", b"payload", qos)
        crossing = await stage.agent.traffic.wait_for(
            lambda entry: entry.direction == "to plugin" and entry.kind == "PUBLISH"
        )
        assert (crossing.topic, crossing.payload, crossing.plugin_id) == ("P/Events/x", b"payload", "P")


async def test_a_retained_publication_reaches_who_subscribes_later(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        sender = await stage.peer("a_P")
        await sender.publish("P/Events/kept", b"kept", retain=True)
        later = await stage.peer("b_P")
        await later.subscribe("P/Events/+")
        received = await later.message()
        assert (received.payload, received.retain) == (b"kept", True)


async def test_a_will_is_published_when_the_client_is_lost_and_not_when_it_leaves(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        watcher = await stage.peer("watcher_P")
        await watcher.subscribe("Will")
        leaving = await stage.peer("a_P", will=Will("Will", b"left", 1))
        leaving.leave()
        await leaving.closed()
        lost = await stage.peer("b_P", will=Will("Will", b"lost", 1))
        lost.vanish()
        assert (await watcher.message()).payload == b"lost"


async def test_an_undeclared_will_is_not_published(root: Path, broker: str) -> None:
    async with staged(root, broker, subscribe=["Other"]) as stage:
        watcher = await stage.peer("watcher_P")
        await watcher.subscribe("Other")
        lost = await stage.peer("a_P", will=Will("Other", b"lost", 1))
        lost.vanish()
        await stage.lines.wait_for("DISCONNECT: connection lost")
        await watcher.publish("P/Status")  # a round trip: nothing came before its answer
        assert stage.agent.traffic.denied["P"] == 1
        await stage.lines.wait_for("denied: may not publish to 'Other' (WILL)")


async def test_a_kept_session_gets_what_came_meanwhile_and_a_clean_one_does_not(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        keeper = await stage.peer("keeper_P", clean=False)
        await keeper.subscribe("P/Events/+")
        keeper.leave()
        await keeper.closed()
        await stage.lines.wait_for("DISCONNECT: left")
        sender = await stage.peer("sender_P")
        await sender.publish("P/Events/x", b"meanwhile")
        again, present, code = await stage.connect("keeper_P", clean=False)
        assert (present, code) == (True, 0)
        assert (await again.message()).payload == b"meanwhile"
        again.leave()
        await again.closed()
        await stage.lines.wait_for("DISCONNECT: left", count=2)
        _, present, _ = await stage.connect("keeper_P", clean=True)
        assert not present


async def test_an_unacknowledged_message_is_delivered_once_a_connection_and_again_on_the_next(
    root: Path, broker: str
) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        slow = await stage.peer("slow_P", clean=False)
        await slow.subscribe("P/Events/+")
        sender = await stage.peer("sender_P")
        await sender.publish("P/Events/x", b"once")
        assert (await slow.message(acknowledge=False)).payload == b"once"
        with anyio.move_on_after(2.5) as waited:  # NATS repeats after its ack_wait of 1 s; the gate holds that back
            await slow.packet()
        assert waited.cancelled_caught
        slow.vanish()
        await stage.lines.wait_for("DISCONNECT: connection lost")
        again = await stage.peer("slow_P", clean=False)
        repeated = await again.message()
        assert (repeated.payload, repeated.dup) == (b"once", True)


async def test_denials_are_silent_for_the_client_and_loud_for_the_developer(root: Path, broker: str) -> None:
    async with staged(root, broker, subscribe=["Other/#"]) as stage:
        peer = await stage.peer()
        assert await peer.subscribe("Secret/+", "Other/x", "P", qos=1) == b"\1\1\1"
        for qos in (0, 1, 2):
            assert await peer.publish("Other/x", b"undeclared", qos=qos) == b""
        await peer.publish("P/Status", b"ok")
        await peer.ping()  # and not one of the publications
        assert stage.agent.traffic.denied == {"P": 4}
        await stage.lines.wait_for("denied: may not subscribe to 'Secret/+'")
        await stage.lines.wait_for("denied: may not publish to 'Other/x'", count=3)


async def test_a_process_that_the_agent_did_not_launch_is_refused(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        for level, expected in ((4, 5), (5, 0x87)):
            peer, _, code = await stage.dial(stage.agent.broker[1], Connect(level=level, client_id="P"))
            assert code == expected
            await peer.closed()
        line = await stage.lines.wait_for("refused: only processes that the agent launched may connect")
        assert "which the agent did not launch" in line


async def test_a_client_id_that_does_not_name_the_plugin_is_refused(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        for client_id in ("", "Q", "p", "PP", "P-1"):
            for level, expected in ((4, 2), (5, 0x85)):
                peer, _, code = await stage.connect(client_id, version=level)
                assert code == expected, client_id
                await peer.closed()
        await stage.lines.wait_for("the client id does not name the plugin")


async def test_one_form_of_the_client_id_can_be_required(root: Path) -> None:
    async with staged(root, "mosquitto", like=Likeness(client_id="plugin_{PluginId}")) as stage:
        _, _, refused = await stage.connect("P")
        _, _, accepted = await stage.connect("plugin_P")
        assert (refused, accepted) == (0x85, 0)


async def test_mqtt_5_is_refused_where_it_is_switched_off(root: Path, broker: str) -> None:
    async with staged(root, broker, mqtt5=False) as stage:
        _, _, code = await stage.connect(version=5)
        assert code == 0x84
        _, _, code = await stage.connect(version=4)
        assert code == 0


async def test_nats_refuses_mqtt_5_in_its_own_words(root: Path) -> None:
    async with staged(root, "nats") as stage:
        peer, _, code = await stage.connect(version=5)
        assert code == 1
        await peer.closed()
        assert (await stage.connect(version=4))[2] == 0


async def test_protocol_levels_other_than_4_and_5_are_refused(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await stage.raw()
        peer.send(b"\x10\x0f\0\6MQIsdp\3\2\0\x3c\0\1P")
        assert (await peer.expect(CONNACK)).body == b"\0\1"


async def test_the_newer_connection_takes_a_client_id_over_again_and_again(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        older = await stage.peer()
        for _ in range(5):
            newer = await stage.peer()
            if stage.version == 5:
                farewell = await older.expect(DISCONNECT)
                assert farewell.body[0] == 0x8E
            await older.closed()
            older = newer
        await older.subscribe("P/Events/+")
        await older.publish("P/Events/x", b"still here", qos=0)
        assert (await older.message()).payload == b"still here"


async def test_a_takeover_lets_the_will_of_the_older_connection_go(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        watcher = await stage.peer("watcher_P")
        await watcher.subscribe("Will")
        await stage.peer(will=Will("Will", b"taken over", 1))
        await stage.peer()
        assert (await watcher.message()).payload == b"taken over"


async def test_clients_are_dropped_when_the_engine_is_killed_and_served_when_it_is_back(
    root: Path, broker: str
) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        keeper, clean = await stage.peer("keeper_P", clean=False), await stage.peer("clean_P")
        await keeper.subscribe("P/Events/+")
        await keeper.ping()
        before = stage.agent.engine_pid
        await stage.agent.kill_engine(pause=0.3)
        await keeper.closed()
        await clean.closed()
        with pytest.raises(ConnectionError):
            await stage.connect()
        assert stage.agent.engine_pid is None
        with anyio.fail_after(5):
            await stage.agent.wait_engine()
        assert stage.agent.engine_pid not in (None, before)
        again, present, code = await stage.connect("keeper_P", clean=False)
        assert (present, code) == (True, 0)
        sender = await stage.peer("sender_P")
        await sender.publish("P/Events/x", b"after")
        assert (await again.message()).payload == b"after"


async def test_what_was_acknowledged_survives_ten_kills_of_the_engine(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        keeper = await stage.peer("keeper_P", clean=False)
        await keeper.subscribe("P/Events/+")
        keeper.leave()
        await keeper.closed()
        for number in range(10):
            sender = await stage.peer("sender_P")
            await sender.publish("P/Events/x", str(number).encode())
            await sender.ping()
            await stage.agent.kill_engine()
            with anyio.fail_after(5):
                await stage.agent.wait_engine()
        again = await stage.peer("keeper_P", clean=False)
        received = {(await again.message()).payload for _ in range(10)}
        assert received == {str(number).encode() for number in range(10)}


async def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.passage.UNSENT", 64 * 1024)
    async with staged(root, "mosquitto", publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        deaf = await stage.peer("deaf_P")
        await deaf.subscribe("P/Events/+", qos=0)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        sender = await stage.peer("sender_P")
        with anyio.fail_after(20):
            while not any("it reads too slowly" in line for line in stage.lines.seen):
                await sender.publish("P/Events/x", b"x" * 100_000)


async def test_what_breaks_the_protocol_is_closed_with_a_word(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await stage.peer()
        peer.send(Packet(PUBLISH, 6, b"\0\1a").encode())
        await peer.closed()
        await stage.lines.wait_for("closed: PUBLISH at QoS 3")
        peer = await stage.raw()
        peer.send(b"\xc0\x00")
        await peer.closed()
        await stage.lines.wait_for("closed: PINGREQ before CONNECT")


async def test_a_connection_without_connect_is_closed_after_a_while(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.gate.CONNECT_WITHIN", 0.1)
    async with staged(root, "mosquitto") as stage:
        peer = await stage.raw()
        await peer.closed()
        await stage.lines.wait_for("a connection sent no CONNECT in time")


async def test_packets_that_come_with_connect_are_not_lost(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        peer = await stage.raw()
        connect = Connect(level=4, client_id="P").encode()
        peer.send(connect + Subscribe(1, (("P", 0),)).encode(4) + Publish("no", b"x", 1, mid=2).encode(4))
        packets = [await peer.packet() for _ in range(3)]
        assert {packet.kind for packet in packets if packet is not None} == {CONNACK, PUBACK, SUBACK}


async def test_a_topic_with_a_space_makes_nats_close_the_connection(root: Path) -> None:
    async with staged(root, "nats", publish=["P/#"]) as stage:
        peer = await stage.peer()
        peer.send(Publish("P/a b", b"x").encode(4))
        await peer.closed()
        await stage.lines.wait_for("nats closed the connection")


async def test_of_many_connections_at_the_same_time_one_stays(root: Path, broker: str) -> None:
    async with staged(root, broker, publish=PUBLISH_ANY, subscribe=SUBSCRIBE_ANY) as stage:
        peers = [await stage.raw(level=stage.version) for _ in range(6)]
        for peer in peers:
            peer.send(Connect(level=stage.version, client_id="P").encode())
        watcher = await stage.peer("watcher_P")
        await watcher.subscribe("P/Events/+")
        async with anyio.create_task_group() as tasks:
            for number, peer in enumerate(peers):
                tasks.start_soon(_speak, peer, number)
            assert (await watcher.message()).topic == "P/Events/x"
            tasks.cancel_scope.cancel()
        assert sum([not await _is_closed(peer) for peer in peers]) == 1


async def _speak(peer: Peer, number: int) -> None:
    """Publish once where the connection is accepted, and stay."""
    if (packet := await peer.packet()) is not None and packet.kind == CONNACK:
        peer.send(Publish("P/Events/x", str(number).encode()).encode(peer.version))
        await anyio.sleep_forever()


async def _is_closed(peer: Peer) -> bool:
    """Tell whether a connection is closed: nothing answers there."""
    peer.send(Packet(PINGREQ, 0, b"").encode())
    while (packet := await peer.packet()) is not None:
        if packet.kind == PINGRESP:
            return False
    return True
