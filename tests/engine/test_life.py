"""The life of a plugin: start, stand-by, lifespan, reconnects, drain, and every way of ending."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Gap, Handler, Message, Plugin, Request, Settings
from kepm_plugin.errors import AgentUnreachable, BadAgentAnswer, InstanceError, LinkLost, StoreError, UsageError
from kepm_plugin.link import Deliver, Session
from kepm_plugin.message import Publication, Received
from kepm_plugin.store import Keep, memory_store, open_store
from kepm_plugin.testing import MemoryAgent, hosted
from tests.engine.world import JSON, World, fresh

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class Recorder(Plugin, abstract=True):
    """Notes what happens to it, in order."""

    events: list[str]

    def __init__(self) -> None:
        self.events = []

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.events.append("opening")
        yield
        self.events.append("closed")


@Recorder.command("note")
class Note(Handler[Recorder]):
    async def handle(self, message: Message[JSON]) -> str:
        self.plugin.events.append(f"handled {message.payload.get('name', '')}".strip())
        return "noted"


# --- lifespan ---------------------------------------------------------------------------------------------------------


async def test_the_lifespan_has_settings_publishes_into_the_queue_and_sees_no_message() -> None:
    class Own(Settings):
        depth: int = 3

    class P(Recorder):
        id = "P"
        settings: Own
        allow_publish = ("Findings",)

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            self.events.append(f"depth {self.settings.depth}")
            await self.publish("Findings", {"from": "lifespan"})
            with pytest.raises(LinkLost):
                await self.publish("Findings", {}, wait="acknowledged", timeout=0.01)
            world.send("P/Commands/note", retain=True)
            await anyio.sleep(0.01)
            self.events.append("opened")
            yield
            self.events.append("closed")

    world = World(P, settings={"depth": "5"})
    async with world.running():
        await world.until(lambda: world.on("P/Responses/note"))
        assert world.plugin.events == ["depth 5", "opened", "handled"]
        world.stop()
        await world.ended()
    assert world.plugin.events[-1] == "closed"
    assert world.on("P/Findings")[0] == {"from": "lifespan"}


async def test_settings_are_not_there_before_the_lifespan() -> None:
    class P(Recorder):
        id = "P"

        def __init__(self) -> None:
            super().__init__()
            with pytest.raises(AttributeError, match=r"P\.settings are there from `lifespan` on"):
                str(self.settings)

    async with hosted(P) as host:
        assert isinstance(host.plugin.settings, Settings)


async def test_a_lifespan_that_fails_before_its_yield_ends_the_start_with_its_own_error() -> None:
    class P(Recorder):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            raise FileNotFoundError("/etc/worker")
            yield

    with pytest.raises(FileNotFoundError):
        async with hosted(P):
            pytest.fail("it must not serve")


@pytest.mark.parametrize("error", [UsageError("the CA bundle cannot be used"), RuntimeError("a mistake of ours")])
async def test_the_lifespan_is_closed_when_the_start_fails_after_it_and_cannot_hide_that(error: Exception) -> None:
    closed: list[str] = []

    class P(Recorder):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            try:
                yield
            except BaseException as exc:  # noqa: BLE001  an author who swallows everything
                closed.append(repr(exc))
            closed.append("closed")

    @asynccontextmanager
    async def connect(*_: object, **__: object) -> AsyncGenerator[Any]:
        raise error
        yield

    world = World(P, connect=connect)
    with anyio.fail_after(5), pytest.raises(type(error), match=str(error)):
        await world.run_to_the_end(served=False)
    assert closed == ["closed"]


async def test_a_crash_while_serving_is_logged_before_the_link_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    class P(Recorder):
        id = "P"

    with memory_store() as store:
        monkeypatch.setattr(store, "finish", fail)
        world = World(P, store=store)
        with anyio.fail_after(5), pytest.raises(RuntimeError):
            await world.run_to_the_end(lambda: world.send("P/Commands/note"))
    [record] = [each for each in world.on("KeeperLogger") if each["message"] == "plugin.crashed"]
    assert "a mistake of ours" in str(record)
    assert (world.states()[-1], world.on("P/Status")[-1]["reason"]) == ("stopped", "crashed")
    assert world.plugin.events[-1] == "closed"


async def test_an_authors_task_group_may_live_in_the_lifespan() -> None:
    ended: list[str] = []

    class P(Recorder):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                yield
                tasks.cancel_scope.cancel()
            ended.append("tasks")

    async with hosted(P) as host:
        assert (await host.command("note"))["ok"]
        outcome = await host.stop()
    assert (ended, outcome.error, outcome.cut_off) == (["tasks"], None, False)


@on_mock_clock
async def test_a_lifespan_that_does_not_end_is_cut_off_at_the_drain_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class P(Recorder):
        id = "P"
        drain = 10.0

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            yield
            await anyio.sleep_forever()

    world = World(P)
    async with world.running():
        await world.served()
        world.stop()
        await world.ended(within=11)
    assert "lifespan.cut_off" in [one.message for one in caplog.records]
    assert world.states()[-1] == "stopped"


# --- reconnecting -----------------------------------------------------------------------------------------------------


class Reconnecting(Recorder, abstract=True):
    async def on_reconnect(self, gap: Gap) -> None:
        self.events.append(f"gap: {gap.reason}, kept {gap.session_present}, dropped {gap.dropped}")
        await self.publish("Told", {"seconds": gap.seconds})


@pytest.mark.parametrize("clean", [True, False])
async def test_a_reconnect_tells_the_plugin_of_the_gap_and_leaves_the_lifespan_alone(clean: bool) -> None:
    class P(Reconnecting):
        id = "P"
        clean_session = clean
        allow_publish = ("Told",)

    async with hosted(P) as host:
        await host.lose_link()
        [told] = await host.until_published("Told")
        assert (await host.command("note"))["ok"]
        assert told["seconds"] >= 0
        assert host.plugin.events == [
            "opening",
            f"gap: the connection was cut, kept {not clean}, dropped 0",
            "handled",
        ]


@on_mock_clock
async def test_the_gap_counts_publications_of_ours_that_became_too_old() -> None:
    class P(Reconnecting):
        id = "P"
        allow_publish = ("Told", "Findings")
        link_budget = 3600.0

    world = World(P)
    async with world.running():
        await world.served()
        await anyio.wait_all_tasks_blocked()
        world.broker.kill()
        await anyio.sleep(0.1)
        for _ in range(3):
            await world.plugin.publish("Findings", {})
        await anyio.sleep(400)
        world.broker.up = True
        await world.until(lambda: world.on("P/Told"))
    assert world.plugin.events[1].endswith("dropped 3")
    assert world.on("P/Status")[-1]["counters"]["notSent"] == 3
    assert world.on("P/Findings") == []


async def test_a_hook_that_fails_is_logged_and_the_plugin_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    class P(Recorder):
        id = "P"

        async def on_reconnect(self, gap: Gap) -> None:
            raise ValueError("no")

    async with hosted(P) as host:
        await host.lose_link()
        assert (await host.command("note"))["ok"]
        assert [one.name for one in await host.until_errors()] == ["on_reconnect"]
    [record] = [one for one in caplog.records if one.message == "hook.failed"]
    assert vars(record)["method"] == "on_reconnect"


async def test_what_comes_while_the_plugin_is_away_is_handled_where_the_broker_keeps_it() -> None:
    class P(Recorder):
        id = "P"
        clean_session = False

    world = World(P)
    async with world.running():
        await world.served()

        def lose() -> None:
            world.broker.cut("P")
            world.send("P/Commands/note", {"name": "meanwhile"})

        await world.reconnected(lose)
        await world.until(lambda: world.on("P/Responses/note"))
    assert "handled meanwhile" in world.plugin.events


@on_mock_clock
async def test_a_link_that_cannot_be_restored_ends_the_run_with_its_own_error() -> None:
    class P(Recorder):
        id = "P"
        link_budget = 60.0

    world = World(P)
    async with world.running():
        await world.served()
        world.broker.kill()
        outcome = await world.ended(within=75)
    assert isinstance(outcome.error, LinkLost)
    assert outcome.error.exit_code == 72
    assert world.plugin.events[-1] == "closed"


async def test_after_a_failed_attempt_the_brokers_address_is_read_again() -> None:
    failing = False

    @asynccontextmanager
    async def connect(client_id: str, deliver: Deliver, **given: Any) -> AsyncGenerator[Session]:
        nonlocal failing
        if failing:
            failing = False
            raise AgentUnreachable("nobody listens")
        async with world.broker.connect(client_id, deliver, **given) as session:
            yield session

    def lose() -> None:
        nonlocal failing
        failing = True
        world.broker.cut("P")

    world = World(fresh(), connect=connect)
    async with world.running():
        await world.served()
        world.agent.system |= {"broker.host": "localhost", "broker.port": "9999"}
        await world.reconnected(lose)
        world.agent.system["broker.port"] = "no port"
        await world.reconnected(lose)
        world.agent.refusing = True
        await world.reconnected(lose)
    assert world.places == [*[("127.0.0.1", 8675)] * 2, *[("localhost", 9999)] * 5]


async def test_an_agent_without_settings_of_its_own_means_the_documented_address() -> None:
    class Agent(MemoryAgent):
        async def settings(self, plugin: str) -> dict[str, str]:
            self.system = {}
            return await super().settings("P" if plugin == "P" else "Unknown")

    world = World(fresh(), agent=Agent("P", {}))
    async with world.running():
        await world.served()
    assert world.places == [("127.0.0.1", 8675)]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "1e3"])
async def test_a_port_that_is_none_is_told_at_the_start(port: str) -> None:
    world = World(fresh())
    world.agent.system["broker.port"] = port
    async with world.running():
        with pytest.raises(BadAgentAnswer, match=r"broker.port"):
            await world.ended()


# --- one copy handles -------------------------------------------------------------------------------------------------


@on_mock_clock
async def test_a_second_copy_stands_by_without_a_connection_until_the_lock_is_free() -> None:
    world = World(fresh())
    world.lock_free = False
    async with world.running():
        await anyio.sleep(60)
        assert (world.places, world.outcome, world.serving.status.state) == ([], None, "standby")
        world.agent.system["broker.port"] = "1234"
        world.lock_free, world.broker.up = True, False
        await anyio.sleep(1)
        assert set(world.places) == {("127.0.0.1", 1234)}, "the settings are read again"
        assert world.serving.status.reason == "the broker in memory is down"
        world.broker.up = True
        await world.served()
        assert world.serving.status.state == "running"


@on_mock_clock
async def test_a_copy_that_stood_by_handles_what_the_one_before_received_meanwhile(tmp_path: Path) -> None:
    class P(Slow):
        id = "P"

    world = World(P, open_store=partial(open_store, tmp_path))
    world.lock_free = False
    async with world.running():
        await anyio.wait_all_tasks_blocked()
        with open_store(tmp_path) as predecessor:
            predecessor.journal([Received("P/Commands/wait", b'{"seconds": 0}', qos=1, mid=1)])
        world.lock_free = True
        await world.until(lambda: world.on("P/Responses/wait"))


async def test_gaps_are_told_one_at_a_time_and_those_that_wait_as_one() -> None:
    told: list[Gap] = []
    go_on = anyio.Event()

    class P(Plugin):
        id = "P"

        async def on_reconnect(self, gap: Gap) -> None:
            told.append(gap)
            await go_on.wait()

    world = World(P)
    async with world.running():
        await world.served()
        for _ in range(5):
            await world.reconnected(lambda: world.broker.cut("P"))
        await anyio.wait_all_tasks_blocked()
        assert len(told) == 1
        go_on.set()
        await anyio.wait_all_tasks_blocked()
    assert len(told) == 2
    assert told[1].seconds > 0


async def test_a_request_to_stop_does_not_wait_for_a_lifespan_that_opens() -> None:
    events: list[str] = []

    class P(Plugin):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            try:
                await anyio.sleep(3600)
                yield
            finally:
                events.append("given up")

    world = World(P)
    async with world.running():
        await anyio.wait_all_tasks_blocked()
        world.stop()
        outcome = await world.ended(within=1)
    assert (outcome.error, outcome.cut_off, events) == (None, False, ["given up"])


async def test_a_copy_that_stands_by_stops_when_asked_to() -> None:
    world = World(fresh())
    world.lock_free = False
    async with world.running():
        await anyio.sleep(1)
        world.stop()
        outcome = await world.ended(within=1)
    assert (outcome.error, world.places) == (None, [])


@on_mock_clock
async def test_a_copy_that_stands_by_ends_with_its_launcher() -> None:
    world = World(fresh())
    world.lock_free = False
    async with world.running():
        await anyio.sleep(1)
        world.launcher_gone = True
        with pytest.raises(InstanceError, match="launched this plugin is gone"):
            await world.ended(within=1)


async def test_a_copy_whose_launcher_is_gone_serves_as_long_as_its_link_holds() -> None:
    class P(Recorder):
        id = "P"

    world = World(P)
    async with world.running():
        await world.served()
        world.launcher_gone = True
        world.send("P/Commands/note")
        await world.until(lambda: world.on("P/Responses/note"))


class Slow(Recorder, abstract=True):
    """Its command `wait` takes as many seconds as it is told."""


@Slow.command("wait")
class Wait(Handler[Slow]):
    async def handle(self, message: Message[dict[str, float]]) -> str:
        self.plugin.events.append("waiting")
        await anyio.sleep(message.payload["seconds"])
        self.plugin.events.append("waited")
        return "waited"


@on_mock_clock
@pytest.mark.parametrize(("seconds", "cut_off"), [(1.5, False), (60, True)])
async def test_an_orphan_finishes_what_runs_for_two_seconds_and_leaves_the_rest_to_the_next_copy(
    tmp_path: Path, seconds: float, cut_off: bool
) -> None:
    class P(Slow):
        id = "P"

    with open_store(tmp_path) as store:
        world = World(P, store=store)
        async with world.running():
            await world.served()
            world.send("P/Commands/wait", {"seconds": seconds})
            world.send("P/Commands/wait", {"seconds": seconds})
            await anyio.wait_all_tasks_blocked()
            world.launcher_gone = True
            world.broker.cut("P")
            outcome = await world.ended(within=2.9)
        assert isinstance(outcome.error, InstanceError)
        assert outcome.error.exit_code == 74
        assert outcome.cut_off is cut_off
        assert len(world.places) == 1, "a new session would take that of the next copy"
        assert world.plugin.events == ["opening", "waiting", *([] if cut_off else ["waited"]), "closed"]
        assert store.unfinished_count() == 2 - (not cut_off)
    with open_store(tmp_path) as store:
        successor = World(P, store=store)
        async with successor.running():
            await successor.until(lambda: len(successor.on("P/Responses/wait")) == 1 + cut_off, within=200)


async def test_without_launcher_and_refused_there_is_no_sense_in_waiting() -> None:
    world = World(fresh(), start_budget=3600.0)
    world.agent.refusing = world.launcher_gone = True
    async with world.running():
        with pytest.raises(InstanceError):
            await world.ended(within=5)


# --- stopping ---------------------------------------------------------------------------------------------------------


@on_mock_clock
async def test_the_drain_lets_a_running_handler_finish_and_its_answer_goes_out_before_the_goodbye() -> None:
    class P(Slow):
        id = "P"

    world = World(P)
    async with world.running():
        await world.served()
        world.send("P/Commands/wait", {"seconds": 5})
        await anyio.wait_all_tasks_blocked()
        world.stop()
        await anyio.sleep(1)
        world.send("P/Commands/wait", {"seconds": 0})
        outcome = await world.ended(within=6)
    assert (outcome.error, outcome.cut_off) == (None, False)
    topics = [each.topic for each in world.published]
    assert topics.index("P/Responses/wait") < len(topics) - 1 - topics[::-1].index("P/Status")
    assert len(world.on("P/Responses/wait")) == 1, "nothing new is begun"
    assert world.states()[-2:] == ["stopping", "stopped"]
    assert world.plugin.events == ["opening", "waiting", "waited", "closed"]


@on_mock_clock
async def test_a_handler_that_does_not_end_is_cut_off_and_named(caplog: pytest.LogCaptureFixture) -> None:
    class P(Slow):
        id = "P"
        drain = 5.0

    world = World(P)
    async with world.running():
        await world.served()
        world.send("P/Commands/wait", {"seconds": 3600})
        await anyio.wait_all_tasks_blocked()
        world.stop()
        outcome = await world.ended(within=5.9)
    assert outcome.cut_off
    [record] = [one for one in caplog.records if one.message == "handlers.cut_off"]
    assert (vars(record)["handlers"], vars(record)["seconds"]) == (["Wait"], 5.0)
    assert world.plugin.events == ["opening", "waiting", "closed"]


@on_mock_clock
async def test_a_handler_that_drains_still_gets_answers_and_the_link_is_still_proven() -> None:
    class P(Recorder):
        id = "P"
        drain = 60.0
        ask = Request[JSON, JSON]("/Other/Commands/ask", response="/Other/Responses/ask", timeout=50)

    @P.command("relay")
    class Relay(Handler[P]):
        async def handle(self, message: Message[JSON]) -> JSON:
            return await self.plugin.ask({})

    world = World(P)
    async with world.running():
        await world.served()
        world.send("P/Commands/relay")
        await world.until(lambda: world.on("Other/Commands/ask"))
        world.stop()
        await anyio.sleep(40)  # several echoes
        [question] = world.on("Other/Commands/ask")
        world.send("Other/Responses/ask", {"correlationId": question["correlationId"], "ok": True, "result": {"a": 1}})
        outcome = await world.ended(within=5)
    assert not outcome.cut_off
    assert world.on("P/Responses/relay")[0]["result"] == {"a": 1}
    assert len(world.places) == 1, "no echo was missed"


async def test_a_stop_while_the_settings_are_read_ends_at_once() -> None:
    world = World(fresh(), start_budget=3600.0)
    world.agent.refusing = True
    async with world.running():
        await anyio.wait_all_tasks_blocked()
        world.stop()
        outcome = await world.ended(within=5)
    assert (outcome.error, world.places) == (None, [])


@on_mock_clock
async def test_a_stop_while_the_link_is_down_takes_no_longer_than_the_handlers() -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        world.broker.kill()
        await anyio.sleep(1)
        world.stop()
        outcome = await world.ended(within=2)
    assert outcome.error is None


async def test_answers_that_an_earlier_run_could_not_send_are_sent_once(tmp_path: Path) -> None:
    answer = Publication("P/Responses/note", b'"kept"')
    with open_store(tmp_path) as store:
        store.keep([(Keep.ANSWER, answer)])
        world = World(fresh(), store=store)
        async with world.running():
            await world.until(lambda: world.on("P/Responses/note"))
            await anyio.wait_all_tasks_blocked()
            assert store.kept() == []


@on_mock_clock
async def test_an_answer_waits_for_the_link_as_long_as_it_takes() -> None:
    class P(Slow):
        id = "P"
        link_budget = 3600.0

    with memory_store() as store:
        world = World(P, store=store)
        async with world.running():
            await world.served()
            world.send("P/Commands/wait", {"seconds": 5})
            await anyio.sleep(1)
            world.broker.kill()
            await anyio.sleep(1800)
            [(_, kept)] = store.kept()
            assert kept.topic == "P/Responses/wait"
            world.broker.up = True
            await world.until(lambda: world.on("P/Responses/wait"))
            await anyio.wait_all_tasks_blocked()
            assert store.kept() == []


@on_mock_clock
async def test_a_sent_answer_that_cannot_be_forgotten_degrades_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class P(Recorder):
        id = "P"

    def fail(*_: object) -> None:
        raise StoreError("disk full")

    with memory_store() as store:
        world = World(P, store=store)
        async with world.running():
            await world.served()
            with monkeypatch.context() as patch:
                patch.setattr(store, "keep", fail)
                world.send("P/Commands/note")
                await world.until(lambda: "degraded" in world.states())
                assert "disk full" in str(world.on("P/Status")[-1]["reason"])
                assert len(store.kept()) == 1
            await world.until(lambda: world.states()[-1] == "running")
            assert store.kept() == []
        assert len(world.on("P/Responses/note")) == 1


async def test_a_journal_that_cannot_be_read_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("malformed")

    with memory_store() as store:
        monkeypatch.setattr(store, "unfinished", fail)
        world = World(fresh(), store=store)
        async with world.running():
            with pytest.raises(StoreError):
                await world.ended()


async def test_what_an_earlier_run_left_is_handled_at_the_start(tmp_path: Path) -> None:
    class P(Recorder):
        id = "P"

    with open_store(tmp_path) as store:
        store.journal([Received("P/Commands/note", b'{"name": "earlier"}', 1)])
    with open_store(tmp_path) as store:
        world = World(P, store=store)
        async with world.running():
            await world.until(lambda: world.on("P/Responses/note"))
    assert world.plugin.events[1] == "handled earlier"


async def test_an_agent_that_cannot_be_reached_is_told() -> None:
    class Agent(MemoryAgent):
        async def settings(self, plugin: str) -> dict[str, str]:
            raise AgentUnreachable("nobody listens")

    world = World(fresh(), agent=Agent("P", {}))
    async with world.running():
        with pytest.raises(AgentUnreachable):
            await world.ended()
