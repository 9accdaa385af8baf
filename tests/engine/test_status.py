"""What an operator sees from afar: `<Id>/Status`, and the records on `KeeperLogger`."""

import json
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kepm_plugin import Handler, Message, Plugin, Publisher, Settings, setting
from kepm_plugin.errors import SettingsError, StoreError
from kepm_plugin.link import Deliver, Session
from kepm_plugin.message import Publication, Received
from kepm_plugin.outbox import MAX_AGE
from kepm_plugin.store import memory_store
from kepm_plugin.testing import hosted
from tests.engine.world import JSON, World, fresh

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)

SECRET = "s3cret-token"
log = logging.getLogger("author")


class Own(Settings):
    token: str = setting(secret=True)
    depth: int = setting(default=3, le=10)


class Loud(Plugin, abstract=True):
    version = "1.2.3"
    settings: Own
    findings = Publisher[JSON]("Findings")


@Loud.command("log")
class Log(Handler[Loud]):
    async def handle(self, message: Message[JSON]) -> None:
        for number in range(int(message.payload["count"])):
            log.warning("record %d", number, extra={"field": message.payload.get("field")})


@Loud.command("fail")
class Fail(Handler[Loud]):
    async def handle(self, message: Message[JSON]) -> None:
        raise ValueError(f"not with {self.plugin.settings.token}")


class P(Loud):
    id = "P"


GIVEN = {"token": SECRET}


def logged(world: World, logger: str = "author") -> list[str]:
    return [each["message"] for each in world.on("KeeperLogger") if each.get("logger") == logger]


# --- Status -----------------------------------------------------------------------------------------------------------


async def test_each_state_is_published_retained_with_what_an_operator_needs() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.send("P/Commands/log", {"count": 0})
        world.send("P/Commands/log", {"count": "x"})
        await world.until(lambda: len(world.on("P/Responses/log")) == 2)
        world.stop()
        await world.ended()
    assert world.states() == ["running", "running", "stopping", "stopped"], (
        "the second one says that the link is proven"
    )
    for publication in world.published:
        if publication.topic == "P/Status":
            assert (publication.retain, publication.qos) == (True, 1)
    first, _, _, last = world.on("P/Status")
    assert (first["version"], first["processId"], first["reason"]) == ("1.2.3", os.getpid(), "")
    assert (first["link"], last["link"]) == ("unproven", "proven")
    assert first["time"] <= last["time"]
    assert last["counters"] == {
        "handled": 1,
        "rejected": 0,
        "failed": 1,
        "timedOut": 0,
        "retried": 0,
        "duplicates": 0,
        "crashed": 0,
        "tooOld": 0,
        "mismatched": 0,
        "unrouted": 0,
        "dropped": 0,
        "refused": 0,
        "notSent": 0,
        "logsDropped": 0,
        "stalls": 0,
        "deadLetters": 1,
        "deadLettersDropped": 0,
    }


@on_mock_clock
async def test_the_heartbeat_repeats_the_state() -> None:
    class P(Loud):
        id = "P"
        heartbeat = 60

    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.sleep(1)
        before = len(world.states())
        await anyio.sleep(600)
        assert len(world.states()) - before == 10
        world.broker.kill()
        await anyio.sleep(300)
        world.broker.up = True
        await anyio.sleep(1)
    assert world.states().count("disconnected") == 0, "nothing of that waits for the link"


@on_mock_clock
async def test_without_a_heartbeat_the_topic_is_not_used_at_all() -> None:
    class P(Loud):
        id = "P"
        heartbeat = None

    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.sleep(600)
        await world.reconnected(lambda: world.broker.cut("P"))
    assert world.states() == []


async def test_the_last_will_says_that_there_was_no_goodbye() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await world.until(lambda: world.serving.uplink.proven)
        await world.reconnected(lambda: world.broker.cut("P", "the cable"))
        await world.until(lambda: world.states()[-1] == "running")
    will = next(report for report in world.on("P/Status") if report["state"] == "disconnected")
    assert "without a goodbye" in will["reason"]


async def test_a_loss_is_in_the_log_with_its_reason_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()

        def lose() -> None:
            world.broker.kill()
            world.broker.up = True

        await world.reconnected(lose)
    [record] = [one for one in caplog.records if vars(one).get("state") == "disconnected"]
    assert (record.levelname, vars(record)["reason"]) == ("WARNING", "the broker in memory was killed")


@on_mock_clock
async def test_while_it_cannot_connect_the_first_reason_stays(caplog: pytest.LogCaptureFixture) -> None:
    world = World(P, settings=GIVEN)
    world.broker.up = False
    async with world.running():
        await anyio.sleep(60)
        assert world.serving.status.state == "disconnected"
        world.broker.up = True
        await world.served()
        world.broker.kill()
        await anyio.sleep(60)
        assert world.serving.status.reason == "the broker in memory was killed"
    states = [vars(one)["state"] for one in caplog.records if one.message == "state.changed"]
    assert states == ["disconnected", "running", "disconnected", "stopping", "stopped"]


async def test_troubles_of_several_sources_are_told_together_and_end_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)

    def fail(*_: object) -> None:
        raise StoreError("disk full")

    with memory_store() as store:
        world = World(P, settings=GIVEN, store=store)
        async with world.running():
            await world.served()
            world.serving.status.trouble("settings", "bad settings")
            with monkeypatch.context() as patch:
                patch.setattr(store, "journal", fail)
                world.send("P/Commands/log", {"count": 0})
                await world.until(lambda: world.on("P/Status")[-1]["reason"] == "bad settings; disk full")
                assert world.states()[-1] == "degraded"
            await world.until(lambda: world.on("P/Status")[-1]["reason"] == "bad settings")
            await world.until(lambda: world.on("P/Responses/log"))
            world.serving.status.trouble("settings", None)
            world.serving.status.trouble("settings", None)
            await world.until(lambda: world.states()[-1] == "running")


async def test_who_stops_says_so_whatever_happens_meanwhile() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.serving.status.change("stopping")
        await world.reconnected(lambda: world.broker.cut("P"))
        assert world.serving.status.state == "stopping"


# --- the proof of the link --------------------------------------------------------------------------------------------


def without_echo(world: World) -> Any:
    """Connect to a broker that drops the echo in silence, as the agent's does where the manifest lacks it."""

    @asynccontextmanager
    async def connect(client: str, deliver: Deliver, **options: Any) -> AsyncGenerator[Session]:
        def filtered(batch: Sequence[Received]) -> None:
            deliver([each for each in batch if each.topic != "P/Link"])

        async with world.broker.connect(client, filtered, **options) as session:
            yield session

    return connect


@on_mock_clock
async def test_a_link_that_is_not_proven_is_said_once_and_serves(caplog: pytest.LogCaptureFixture) -> None:
    world = World(P, settings=GIVEN, connect=lambda *args, **kwargs: without_echo(world)(*args, **kwargs))
    async with world.running():
        await world.served()
        await anyio.sleep(3600)
        world.send("P/Commands/log", {"count": 0})
        await world.until(lambda: world.on("P/Responses/log"))
        assert world.on("P/Status")[-1]["link"] == "unproven"
        await world.reconnected(lambda: world.broker.cut("P"))
        await anyio.sleep(60)
    [record] = [one for one in caplog.records if one.message == "link.unproven"]
    assert "the deployed manifest may lack it" in vars(record)["reason"]
    assert "look at the contract's client_id" in vars(record)["reason"]
    assert world.states()[0] == "running"


@on_mock_clock
async def test_without_echo_the_link_is_not_checked() -> None:
    class P(Loud):
        id = "P"
        echo = False

    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.sleep(600)
    assert world.on("P/Status")[-1]["link"] == "not checked"
    assert "P/Link" not in {each.topic for each in world.published}


# --- log records ------------------------------------------------------------------------------------------------------


async def test_records_reach_the_logger_in_order_and_survive_an_outage() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()

        def lose() -> None:
            log.warning("before")
            world.broker.cut("P")
            for number in range(250):
                log.warning("meanwhile %d", number)

        await world.reconnected(lose)
        log.warning("after")
        await world.until(lambda: "after" in logged(world))
    assert logged(world) == ["before", *(f"meanwhile {number}" for number in range(250)), "after"]


@on_mock_clock
async def test_while_the_link_is_down_records_take_no_room_from_publications() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        world.broker.kill()
        await anyio.sleep(1)
        for number in range(6000):
            log.warning("meanwhile %d", number)
        await anyio.sleep(1)
        assert len(world.serving.outbox) == 0
        await world.reconnected(lambda: setattr(world.broker, "up", True))
        await anyio.sleep(31)
        assert logged(world)[-1] == "meanwhile 5999"
        assert world.on("P/Status")[-1]["counters"]["logsDropped"] >= 1000


async def test_what_is_logged_at_the_very_end_still_goes_out() -> None:
    class P(Loud):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            yield
            for number in range(250):
                log.warning("closing %d", number)

    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.stop()
        await world.ended()
    assert logged(world) == [f"closing {number}" for number in range(250)]
    assert world.states()[-1] == "stopped"


async def test_records_do_not_crowd_out_answers() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.send("P/Commands/log", {"count": 1000})
        await world.until(lambda: b"record 999" in world.published[-1].payload)
    topics = [each.topic for each in world.published]
    assert topics[topics.index("P/Responses/log") :].count("KeeperLogger") > 800


async def test_records_leave_while_the_plugin_publishes_without_a_pause() -> None:
    world, last = World(P, settings=GIVEN), anyio.Event()
    # Seen as it passes: with so many others the test would look too late, and the mock clock would never tell.
    world.broker.watch(lambda publication: last.set() if b"record 249" in publication.payload else None)

    def publish() -> None:
        """Publish the next one before the last one is off the outbox, so that it is never empty."""
        if not last.is_set():
            world.serving.outbox.put_soon(Publication("P/Findings", b"{}"), publish)

    async with world.running():
        await world.served()
        publish()
        for number in range(250):
            log.warning("record %d", number)
        with anyio.fail_after(5):
            await last.wait()
    assert logged(world) == [f"record {number}" for number in range(250)]


@on_mock_clock
async def test_records_that_a_loss_overtook_do_not_hold_up_later_ones() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        log.warning("too old")
        await anyio.lowlevel.checkpoint()
        world.broker.kill()
        await anyio.sleep(MAX_AGE + 10)
        await world.reconnected(lambda: setattr(world.broker, "up", True))
        log.warning("new")
        await world.until(lambda: "new" in logged(world))


async def test_records_of_another_thread_reach_the_logger() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        log.warning("quiet until now")
        await world.until(lambda: logged(world))


async def test_while_the_link_is_down_people_can_read_along_and_only_then() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        log.warning("starting up")
        await world.served()
        log.warning("all is well")

        def lose() -> None:
            world.broker.cut("P")

        await world.reconnected(lose)
        log.warning("well again")
    lines = world.lines.getvalue()
    assert "starting up" in lines
    assert "state.changed" in lines
    assert "all is well" not in lines
    assert "well again" not in lines


async def test_secrets_are_neither_in_status_nor_in_records_nor_in_lines_nor_in_dead_letters() -> None:
    with memory_store() as store:
        world = World(P, settings=GIVEN, store=store)
        async with world.running():
            await world.served()
            world.send("P/Commands/log", {"count": 1, "field": {"nested": [f"Bearer {SECRET}"]}})
            world.send("P/Commands/fail")
            await world.until(lambda: world.on("P/Responses/fail") and world.on("P/Responses/log"))
            world.agent.stored |= {"depth": SECRET}  # an operator's slip: the value of one key under another
            with pytest.raises(SettingsError, match="depth"):
                await world.serving.settings.refresh()
            await world.until(lambda: world.states()[-1] == "degraded")
            await world.reconnected(lambda: world.broker.cut("P"))
            log.warning("reconnected with %s", SECRET)
            world.stop()
            await world.ended()
        details = str(store.dead_letters())
    everything = b"".join(each.payload for each in world.published if each.topic != "P/Commands/log").decode()
    for expected, text in (
        ("handler.failed", everything),
        ("not with", details),
        ("state.changed", world.lines.getvalue()),
    ):
        assert expected in text
        assert SECRET not in text


async def test_a_secret_that_was_replaced_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.live._taking.SECRETS", 2)
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        for number in range(3):
            world.agent.stored["token"] = f"token-number-{number}"
            await world.serving.settings.refresh()
            log.warning("401 with %s", SECRET if number == 0 else f"token-number-{number - 1}")
        log.warning("in force: %s", "token-number-2")
        world.stop()
        await world.ended()
    assert logged(world) == ["401 with ***"] * 3 + ["in force: ***"]
    assert world.serving.secrets() == {f"token-number-{number}" for number in range(3)}, "the first one is forgotten"


async def test_a_plugin_that_reads_the_log_does_not_make_it_longer() -> None:
    class P(Plugin):
        id = "P"
        heartbeat = None
        echo = False
        allow_subscribe = ("/KeeperLogger",)

    async with hosted(P) as host, host.plugin.subscribe("/KeeperLogger") as records:
        await anyio.wait_all_tasks_blocked()
        before = len(host.published("/KeeperLogger"))
        log.warning("one")
        await host.until_published("/KeeperLogger", before + 1)
        await anyio.wait_all_tasks_blocked()
        assert len(host.published("/KeeperLogger")) == before + 1
        with anyio.fail_after(5):
            while json.loads((await anext(records)).payload)["message"] != "one":
                pass


@on_mock_clock
async def test_what_a_full_outbox_cannot_take_is_counted() -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        world.broker.kill()
        await anyio.sleep(1)
        for _ in range(10_001):
            world.plugin.host.publish_soon(Publication("P/Any", b""))
        await anyio.wait_all_tasks_blocked()
        await world.reconnected(lambda: setattr(world.broker, "up", True))
        await anyio.sleep(31)
        assert world.on("P/Status")[-1]["counters"]["notSent"] >= 1
