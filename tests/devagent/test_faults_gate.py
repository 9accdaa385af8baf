"""Faults of connections and packets, through the connections of a process that the agent launched."""

import asyncio
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin.devagent import (
    CloseBeforeConnack,
    ControlClient,
    DropPuback,
    Duplicate,
    Fault,
    HalfOpen,
    MovePort,
    Mute,
    NewCertificate,
    RefuseConnack,
    RefuseTcp,
    Reset,
    Slow,
    SuspendEngine,
    SuspendPlugin,
)
from kepm_plugin.devagent.bodies import Connect, Publish
from kepm_plugin.devagent.packets import PINGREQ, PUBACK, PUBLISH, Packet, acknowledgement
from kepm_plugin.errors import AgentError, UnknownPlugin, UsageError
from tests.devagent.conftest import Stage, staged, trusting, until

EVENTS: dict[str, Any] = {"publish": ["P/Events/+"], "subscribe": ["P/Events/+"]}
PING = Packet(PINGREQ, 0, b"").encode()


async def test_a_connection_is_reset_now_and_the_next_one_after_connack(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        client = ControlClient.find(root)
        peer = await stage.peer()
        assert await asyncio.to_thread(client.fault, Reset(count=2, plugin="P")) == 1
        await peer.closed()
        await stage.lines.wait_for("puppet lost ConnectionResetError")
        later = await stage.raw()
        later.send(Connect(level=4, client_id="P").encode())
        await later.closed()
        await stage.lines.wait_for("DISCONNECT: reset by a fault", count=2)
        await stage.lines.wait_for("fault 1 is over: Reset, acted 2 times")
        assert (await asyncio.to_thread(client.faults)) == {"active": [], "counts": {"Reset": 2}}
        await (await stage.peer()).ping()


async def test_nothing_goes_either_way_on_a_half_open_connection_until_its_id_comes_again(
    root: Path, broker: str
) -> None:
    async with staged(root, broker, **EVENTS) as stage:
        lost = await stage.peer()
        await lost.subscribe("P/Events/+")
        await stage.agent.fault(HalfOpen())
        lost.send(Publish("P/Events/x", b"into the void", 1, mid=1).encode(lost.version) + PING)
        other = await stage.peer("other_P")
        await other.publish("P/Events/x", b"never seen")
        heard = asyncio.create_task(lost.packet())
        newer = await stage.peer()  # the engine took the older connection for a live one until now
        assert await heard is None
        await newer.ping()
        assert not [entry for entry in stage.agent.traffic if entry.payload == b"into the void"]


async def test_the_gate_may_accept_and_never_answer_tls(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        await stage.agent.fault(Mute(plugin="P"))
        with pytest.raises(OSError, match="refused"):  # a process that is not the plugin's gets its answer
            await _refused(stage)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.raw)
            await stage.lines.wait_for("fault 1 is over: Mute, acted 1 times")
            assert (await stage.peer()).version == 5  # while the first one is still mute
            assert len(stage.peers) == 2  # the stranger's and this one
            tasks.cancel_scope.cancel()


async def _refused(stage: Stage) -> None:
    _, _, code = await stage.dial(stage.agent.broker[1], Connect(level=4, client_id="P"))
    raise ConnectionRefusedError(f"refused with {code}")


async def test_a_connection_may_be_closed_in_place_of_connack_or_refused(root: Path) -> None:
    async with staged(root, "nats") as stage:
        await stage.agent.fault(CloseBeforeConnack())
        peer = await stage.raw()
        peer.send(Connect(level=4, client_id="P").encode())
        assert await peer.packet() is None
        await stage.agent.fault(RefuseConnack(count=3, code=5))
        for level, code in ((4, 5), (5, 0x87), (4, 5)):
            assert (await stage.connect(version=level))[2] == code
        await stage.agent.fault(RefuseConnack(code=0x97))
        assert (await stage.connect(version=4))[2] == 0x97
        assert (await stage.connect(version=4))[2] == 0


async def test_the_port_is_closed_for_a_while(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await stage.peer()
        number = await stage.agent.fault(RefuseTcp(seconds=60))
        await stage.agent.fault(RefuseTcp(seconds=0.01))
        await stage.lines.wait_for("fault 2 is over")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*stage.agent.broker)
        await peer.ping()
        stage.agent.faults.clear(number)
        await (await stage.peer("again_P")).ping()


async def test_a_slow_connection_carries_everything_later(root: Path) -> None:
    async with staged(root, "mosquitto", **EVENTS) as stage:
        peer = await stage.peer()
        await peer.subscribe("P/Events/+")
        number = await stage.agent.fault(Slow(bytes_per_second=20_000, delay=0.01, seconds=60, plugin="P"))
        for payload in (b"a", b"x" * 5_000):
            peer.send(Publish("P/Events/x", payload).encode(peer.version))
        assert [(await peer.message()).payload[:1] for _ in range(2)] == [b"a", b"x"]
        stage.agent.faults.clear(number)
        await peer.ping()


@pytest.mark.parametrize("same_id", [False, True])
async def test_every_second_delivery_comes_twice_and_the_engine_sees_one_acknowledgement(
    root: Path, broker: str, same_id: bool
) -> None:
    async with staged(root, broker, **EVENTS) as stage:
        peer, sender = await stage.peer(clean=False), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await stage.agent.fault(Duplicate(every=2, same_id=same_id, count=2))
        for number in range(6):
            await sender.publish("P/Events/x", str(number).encode())
        received = [await peer.message() for _ in range(8)]
        assert [(one.payload, one.dup) for one in received] == [
            *((b"0", False), (b"1", False), (b"1", True), (b"2", False)),
            *((b"3", False), (b"3", True), (b"4", False), (b"5", False)),
        ]
        assert (received[1].mid == received[2].mid) is same_id
        await peer.ping()
        page = stage.agent.deliveries.page("P")
        assert (page["sent"], page["total"]) == (8, 6 if same_id else 8)
        peer.vanish()
        again = await stage.peer(clean=False)  # nothing is left that was not acknowledged
        await again.ping()


async def test_the_brokers_acknowledgement_is_lost_once(root: Path) -> None:
    async with staged(root, "mosquitto", **EVENTS) as stage:
        peer = await stage.peer()
        await stage.agent.fault(DropPuback())
        for topic in ("P/Events/x", "Undeclared"):
            peer.send(Publish(topic, b"x", 1, mid=7).encode(peer.version) + PING)
            if topic == "P/Events/x":
                await peer.ping()
                assert stage.agent.faults.counts["DropPuback"] == 1
                await peer.packet()  # the answer to the second PINGREQ
                await stage.agent.fault(DropPuback())
        await peer.ping()
        assert stage.agent.faults.counts["DropPuback"] == 2


async def test_the_plugins_acknowledgement_is_lost_and_the_message_comes_again(root: Path, broker: str) -> None:
    async with staged(root, broker, **EVENTS) as stage:
        peer, sender = await stage.peer(clean=False), await stage.peer("sender_P")
        await peer.subscribe("P/Events/+")
        await stage.agent.fault(DropPuback(direction="from plugin"))
        await sender.publish("P/Events/x", b"again")
        await peer.message()
        await peer.ping()
        assert stage.agent.deliveries.acknowledged("P") == ()
        peer.vanish()
        again = await stage.peer(clean=False)
        assert (await again.message()).payload == b"again"
        await again.ping()
        assert [row.topic for row in stage.agent.deliveries.acknowledged("P")] == ["P/Events/x"]


async def test_gate_and_api_show_a_new_certificate_while_they_run(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await stage.peer()
        ports = (stage.agent.broker[1], int(stage.agent.api_base.rpartition(":")[2]))
        before = [await _certificate(port) for port in ports]
        await asyncio.to_thread(ControlClient.find(root).fault, NewCertificate())
        after = [await _certificate(port) for port in ports]
        assert before[0] == before[1] != after[0] == after[1]
        await peer.ping()


async def _certificate(port: int) -> bytes:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
    try:
        tls = writer.get_extra_info("ssl_object")
        assert isinstance(tls, ssl.SSLObject)
        return tls.getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()


async def test_the_gate_moves_to_another_port_and_the_setting_follows(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await stage.peer()
        before = stage.agent.broker
        await stage.agent.fault(MovePort())
        await peer.closed()
        after = stage.agent.broker
        assert before != after
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*before)
        async with stage.http() as http:
            values = (await http.get("/api/PluginSettings/KeeperPrivilegeManager")).json()
        assert values["broker.port"] == str(after[1])
        await (await stage.peer()).ping()
        with pytest.raises(AgentError, match="is not free"):
            await stage.agent.fault(MovePort(port=int(stage.agent.api_base.rpartition(":")[2])))
        await (await stage.peer("still_P")).ping()
        await stage.agent.fault(MovePort(port=before[1]))
        assert stage.agent.broker == before


async def test_a_suspended_engine_answers_when_it_is_continued(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        client = ControlClient.find(root)
        peer = await stage.peer()
        number = await asyncio.to_thread(client.fault, SuspendEngine(seconds=60))
        peer.send(PING)
        answer = asyncio.create_task(peer.packet())
        assert (await asyncio.to_thread(client.faults))["counts"] == {"SuspendEngine": 1}
        assert not answer.done()
        await asyncio.to_thread(client.clear_faults, number)
        assert await answer is not None


async def test_a_plugin_is_suspended_and_killed_by_any_signal(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        client, agent = ControlClient.find(root), stage.agent
        await asyncio.to_thread(client.fault, SuspendPlugin(plugin="P", seconds=60))
        agent.faults.clear()
        await (await stage.peer()).ping()
        await asyncio.to_thread(client.kill_plugin, "P", "SIGSTOP")
        await asyncio.to_thread(client.kill_plugin, "P", "SIGCONT")
        await asyncio.to_thread(client.kill_plugin, "P")
        await stage.lines.wait_for("ended with signal 9; it is started again")
        await until(lambda: agent.plugins["P"].launches == 2)
        with pytest.raises(UsageError, match="no signal 'SIGNAL' here"):
            await asyncio.to_thread(client.kill_plugin, "P", "SIGNAL")
        with pytest.raises(UnknownPlugin, match="no plugin 'Q'"):
            await asyncio.to_thread(client.fault, Reset(plugin="Q"))
        await agent.stop("P")
        for refused in (lambda: client.kill_plugin("P"), lambda: client.fault(SuspendPlugin(plugin="P", seconds=1))):
            with pytest.raises(AgentError, match="P is not running"):
                await asyncio.to_thread(refused)


async def test_a_suspended_plugin_can_be_stopped_at_the_end(root: Path) -> None:
    async with staged(root, "mosquitto", stop_grace=30.0) as stage:
        await stage.agent.fault(SuspendPlugin(plugin="P", seconds=60))
        lines = stage.lines
    await lines.wait_for("fault 1 is over: SuspendPlugin")
    assert not [line for line in lines.seen if "was killed" in line]


async def test_what_a_plugin_acknowledged_can_be_read_page_by_page(root: Path, broker: str) -> None:
    async with staged(root, broker, **EVENTS) as stage:
        client = ControlClient.find(root)
        peer = await stage.peer()
        await peer.subscribe("P/Events/+", qos=2)
        for qos in (0, 1, 2):
            sender = await stage.peer(f"sender{qos}_P")
            await sender.publish("P/Events/x", f"qos {qos}".encode(), qos=qos)
            await peer.message()
        await peer.ping()
        page = await asyncio.to_thread(client.deliveries, "P")
        counted = Counter({key: page[key] for key in ("sent", "sent_qos0", "dropped", "total", "first")})
        assert counted == {"sent": 2, "sent_qos0": 1, "dropped": 0, "total": 2, "first": 0}
        assert [row[1] for row in page["acknowledged"]] == ["P/Events/x"] * 2
        later = await asyncio.to_thread(client.deliveries, "P", 1)
        assert later["acknowledged"] == page["acknowledged"][1:]


_ = (Fault, PUBACK, PUBLISH, acknowledgement)
