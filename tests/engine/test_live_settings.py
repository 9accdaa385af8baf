"""Settings of a running plugin: read at the start, watched, written, reverted; one snapshot for a handler's call."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio.abc import TaskGroup

from kepm_plugin import Change, Handler, Message, Plugin, Settings, setting
from kepm_plugin.errors import AgentRefused, AgentUnreachable, SettingsError, UnknownPlugin
from kepm_plugin.testing import MemoryAgent, hosted
from tests.engine.world import JSON, World

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Own(Settings):
    root: str = setting(default="/etc", key="scan.root")
    depth: int = setting(default=3, ge=1, le=10)
    token: str = setting(secret=True)


class Scanner(Plugin, abstract=True):
    settings: Own
    changes: list[Change[Own]]

    def __init__(self) -> None:
        self.changes = []

    async def on_settings_changed(self, change: Change[Own]) -> None:
        assert self.settings == change.new
        self.changes.append(change)


class P(Scanner):
    id = "P"


class Needy(Settings):
    root: str
    token: str = setting(secret=True)


class N(Plugin):
    id = "P"
    settings: Needy


GIVEN = {"token": "s3cret-token"}


# --- at the start -----------------------------------------------------------------------------------------------------


async def test_the_agents_strings_become_one_typed_snapshot() -> None:
    async with hosted(P, settings=GIVEN | {"scan.root": "/tmp", "depth": 5}) as host:
        assert host.plugin.settings == Own(root="/tmp", depth=5, token="s3cret-token")


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (N, GIVEN, "'root' is not set"),
        (N, {}, "'root' is not set"),
        (P, GIVEN | {"depth": "11"}, "'depth'"),
        (P, {"depth": "11"}, "'depth'"),
        (P, GIVEN | {"depth": "x"}, "x"),
    ],
)
async def test_settings_that_break_a_rule_end_the_start_with_their_own_error(
    kind: type[Plugin], values: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        async with hosted(kind, settings=values):
            pytest.fail("it must not serve")
    assert caught.value.exit_code == 66


@on_mock_clock
async def test_a_start_waits_for_a_required_secret_that_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(P)
    async with world.running():
        await anyio.sleep(3600)
        assert world.serving.settings.current is None
        world.agent.stored["token"] = "s3cret-token"
        await anyio.sleep(P.settings_interval)
        await world.served()
        assert world.plugin.settings.token == "s3cret-token"
    assert [record.message for record in caplog.records].count("settings.waiting") == 1


class Answering(MemoryAgent):
    """Answers with errors first."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("P", GIVEN)
        self.errors = list(errors)

    async def settings(self, plugin: str) -> dict[str, str]:
        if self.errors:
            raise self.errors.pop(0)
        return await super().settings(plugin)


@on_mock_clock
async def test_refusals_right_after_the_start_are_not_final() -> None:
    agent = Answering(AgentRefused("403"), AgentUnreachable("nobody"), AgentRefused("403"))
    world = World(P, agent=agent, start_budget=60.0)
    async with world.running():
        await world.served()
    assert agent.errors == []


@on_mock_clock
async def test_a_refusal_for_the_whole_start_budget_is_final() -> None:
    world = World(P, agent=Answering(*[AgentRefused("403: not launched by the agent")] * 1000), start_budget=60.0)
    async with world.running():
        with pytest.raises(AgentRefused, match="not launched by the agent"):
            await world.ended(within=61)
    assert anyio.current_time() > 50


async def test_an_unknown_plugin_is_final_at_once() -> None:
    world = World(P, agent=MemoryAgent("Another", GIVEN), start_budget=3600.0)
    async with world.running():
        with pytest.raises(UnknownPlugin, match="no plugin 'P'"):
            await world.ended(within=5)


# --- one snapshot for a call ------------------------------------------------------------------------------------------


async def test_a_call_sees_one_snapshot_whatever_changes_meanwhile() -> None:
    class P(Scanner):
        id = "P"

    started, go_on = anyio.Event(), anyio.Event()

    @P.command("depth")
    class Depth(Handler[P]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> list[int]:
            seen = [self.plugin.settings.depth]
            started.set()
            await go_on.wait()

            async def task() -> None:
                seen.append(self.plugin.settings.depth)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(task)
            return [*seen, self.plugin.settings.depth]

    async with hosted(P, settings=GIVEN) as host:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append((await host.command("depth"))["result"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await started.wait()
            await host.change_setting("depth", 7)
            assert host.plugin.settings.depth == 7
            go_on.set()
        await ask()
    assert answers == [[3, 3, 3], [7, 7, 7]]


@on_asyncio
async def test_a_call_in_a_thread_sees_one_snapshot_too() -> None:
    class P(Scanner):
        id = "P"

    @P.command("depth")
    class Depth(Handler[P]):
        def handle(self, message: Message[JSON]) -> list[int]:
            before = self.plugin.settings.depth
            anyio.from_thread.run(host.change_setting, "depth", 7)
            return [before, self.plugin.settings.depth]

    async with hosted(P, settings=GIVEN) as host:
        assert (await host.command("depth"))["result"] == [3, 3]
        assert host.plugin.settings.depth == 7


async def test_a_task_that_outlives_the_call_that_started_it_sees_the_newest_settings() -> None:
    class P(Scanner):
        id = "P"
        tasks: TaskGroup

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            async with anyio.create_task_group() as self.tasks:
                yield
                self.tasks.cancel_scope.cancel()

    seen: list[int] = []
    go_on = anyio.Event()

    @P.command("start")
    class Start(Handler[P]):
        async def handle(self, message: Message[JSON]) -> None:
            self.plugin.tasks.start_soon(self.work)

        async def work(self) -> None:
            await go_on.wait()
            seen.append(self.plugin.settings.depth)
            async with self.plugin.edit_settings() as draft:
                draft.depth = 8
            seen.append(self.plugin.settings.depth)

    async with hosted(P, settings=GIVEN) as host:
        await host.command("start")
        await host.change_setting("depth", 7)
        go_on.set()
        await anyio.wait_all_tasks_blocked()
        assert (seen, host.plugin.settings.depth) == ([7, 8], 8)


async def test_a_call_sees_what_it_has_changed_itself() -> None:
    class P(Scanner):
        id = "P"

    @P.command("deeper")
    class Deeper(Handler[P]):
        async def handle(self, message: Message[JSON]) -> list[int]:
            before = self.plugin.settings
            async with self.plugin.edit_settings() as draft:
                draft.depth += 1
            after = self.plugin.settings.depth
            await self.plugin.revert_settings()
            return [before.depth, after, self.plugin.settings.depth]

    async with hosted(P, settings=GIVEN) as host:
        assert (await host.command("deeper"))["result"] == [3, 4, 3]
        assert [change.names for change in host.plugin.changes] == [{"depth"}, {"depth"}]


async def test_a_call_sees_what_it_has_changed_where_others_look_meanwhile() -> None:
    class P(Scanner):
        id = "P"

    @P.command("deeper")
    class Deeper(Handler[P]):
        async def handle(self, message: Message[JSON]) -> int:
            async with self.plugin.edit_settings() as draft:
                draft.depth += 1
            return self.plugin.settings.depth

    class Slow(MemoryAgent):
        def __init__(self) -> None:
            super().__init__("P", GIVEN)
            self.written, self.go_on = anyio.Event(), anyio.Event()

        async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
            await super().put_setting(plugin, key, value)
            self.written.set()
            await self.go_on.wait()

    agent = Slow()
    world = World(P, agent=agent)
    async with world.running(), anyio.create_task_group() as tasks:
        await world.served()
        world.send("P/Commands/deeper")
        with anyio.fail_after(5):
            await agent.written.wait()
        tasks.start_soon(world.serving.settings.refresh)
        await anyio.wait_all_tasks_blocked()
        assert world.plugin.settings.depth == 3, "nothing is taken while a transaction is open"
        agent.go_on.set()
        await world.until(lambda: world.on("P/Responses/deeper"))
        assert world.on("P/Responses/deeper")[0]["result"] == 4


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_a_change_is_told_with_old_and_new_and_the_names() -> None:
    async with hosted(P, settings=GIVEN) as host:
        await host.change_setting("scan.root", "/home")
        host.agent.stored["unknown"] = "1"
        await host.change_setting("scan.root", "/home")
        [change] = host.plugin.changes
    assert (change.old.root, change.new.root, change.names) == ("/etc", "/home", frozenset({"root"}))


@on_mock_clock
async def test_changes_at_the_agent_are_seen_within_the_interval() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        for depth in (4, 5):
            world.agent.stored["depth"] = str(depth)
            await anyio.sleep(P.settings_interval * 1.2)
            assert world.plugin.settings.depth == depth
        world.broker.kill()
        await anyio.sleep(1)
        world.agent.stored["depth"] = "6"
        await anyio.sleep(60)
        assert world.plugin.settings.depth == 5, "without a link the agent is down as well"
        world.broker.up = True
        await anyio.sleep(10)
        assert world.plugin.settings.depth == 6


async def test_a_hook_that_fails_does_not_keep_the_change_away(caplog: pytest.LogCaptureFixture) -> None:
    class P(Scanner):
        id = "P"

        async def on_settings_changed(self, change: Change[Own]) -> None:
            raise ValueError("no")

    async with hosted(P, settings=GIVEN) as host:
        await host.change_setting("depth", 7)
        assert host.plugin.settings.depth == 7
        assert [one.name for one in host.errors] == ["on_settings_changed"]
    assert "hook.failed" in [record.message for record in caplog.records]


async def test_the_hook_never_overlaps_itself_and_the_newest_change_is_told_last() -> None:
    told: list[object] = []
    started, go_on, seven, eight = anyio.Event(), anyio.Event(), anyio.Event(), anyio.Event()

    class P(Plugin):
        id = "P"
        settings: Own

        async def on_settings_changed(self, change: Change[Own]) -> None:
            told.append((change.old.depth, change.new.depth, self.settings.depth))
            if change.new.depth == 4:
                started.set()
                await go_on.wait()
            told.append("end")
            {7: seven, 8: eight}.get(change.new.depth, started).set()

    @P.command("deeper")
    class Deeper(Handler[P]):
        async def handle(self, message: Message[JSON]) -> int:
            async with self.plugin.edit_settings() as draft:
                draft.depth += 1
            return self.plugin.settings.depth

    async with hosted(P, settings=GIVEN) as host:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.change_setting, "depth", 4)
            await started.wait()
            assert (await host.command("deeper"))["result"] == 5
            await host.change_setting("depth", 6)
            await host.change_setting("depth", 7)
            assert (told, host.plugin.settings.depth) == ([(3, 4, 4)], 7)
            go_on.set()
        # Whoever changes something does not wait for the one who tells of changes already.
        await seven.wait()
        assert told == [(3, 4, 4), "end", (4, 7, 7), "end"]
        await host.change_setting("depth", 8)
        await eight.wait()
        assert told[-2:] == [(7, 8, 8), "end"]


async def test_a_change_that_is_taken_back_before_it_was_told_is_none() -> None:
    depths: list[int] = []
    started, go_on = anyio.Event(), anyio.Event()

    class P(Plugin):
        id = "P"
        settings: Own

        async def on_settings_changed(self, change: Change[Own]) -> None:
            depths.append(change.new.depth)
            started.set()
            await go_on.wait()

    async with hosted(P, settings=GIVEN) as host, anyio.create_task_group() as tasks:
        tasks.start_soon(host.change_setting, "depth", 4)
        await started.wait()
        await host.change_setting("depth", 5)
        await host.change_setting("depth", 4)
        go_on.set()
    assert depths == [4]


async def test_a_hook_may_change_settings_itself() -> None:
    told: list[tuple[int, str, int]] = []

    class P(Plugin):
        id = "P"
        settings: Own

        async def on_settings_changed(self, change: Change[Own]) -> None:
            async with self.edit_settings() as draft:
                draft.root = f"/depth/{change.new.depth}"
            told.append((change.new.depth, self.settings.root, self.settings.depth))

    async with hosted(P, settings=GIVEN) as host:
        with anyio.fail_after(5):
            await host.change_setting("depth", 4)
    assert told == [(4, "/depth/4", 4)] * 2


async def test_a_hook_that_is_cut_off_does_not_keep_the_next_change_away() -> None:
    depths: list[int] = []
    started = anyio.Event()

    class P(Plugin):
        id = "P"
        settings: Own

        async def on_settings_changed(self, change: Change[Own]) -> None:
            depths.append(change.new.depth)
            if change.new.depth == 4:
                started.set()
                await anyio.sleep_forever()

    async with hosted(P, settings=GIVEN) as host:
        await anyio.wait_all_tasks_blocked()  # the watch has had its first look: it is not the one that tells
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.change_setting, "depth", 4)
            await started.wait()
            await host.change_setting("depth", 5)
            tasks.cancel_scope.cancel()
        await host.change_setting("depth", 5)
    assert depths == [4, 5]


async def test_a_change_that_breaks_a_rule_leaves_the_last_good_settings_and_degrades_until_it_is_gone() -> None:
    async with hosted(P, settings=GIVEN) as host:
        with pytest.raises(SettingsError, match="11"):
            await host.change_setting("depth", 11)
        with pytest.raises(SettingsError):
            await host.change_setting("depth", 11)
        assert host.plugin.settings.depth == 3
        status = (await host.until_published("Status", 2))[-1]
        assert status["state"] == "degraded"
        assert "the last good settings stay in force" in status["reason"]
        await host.change_setting("depth", 3)  # as it was
        status = (await host.until_published("Status", 3))[-1]
        assert (status["state"], status["reason"], host.plugin.changes) == ("running", "", [])
        with pytest.raises(SettingsError):
            await host.change_setting("depth", 12)
        await host.change_setting("depth", 4)
        status = (await host.until_published("Status", 5))[-1]
        assert (status["state"], host.plugin.settings.depth) == ("running", 4)
        await host.lose_link()
        assert (await host.until_published("Status", 7))[-1]["state"] == "running"


class Fragile(Settings):
    depth: int = setting(default=3)
    token: str = setting(default="s3cret-token", secret=True)

    def validate(self) -> None:
        if self.depth == 9:
            raise KeyError(self.token)


class F(Plugin):
    id = "P"
    settings: Fragile


async def test_a_validate_that_fails_is_a_refusal_and_not_the_end() -> None:
    async with hosted(F) as host:
        told = r"KeyError \(.*test_live_settings.py, line .*validate\(\)"
        for value in (9, "9"):
            with pytest.raises(SettingsError, match=told) as caught:
                await host.change_setting("depth", value)
        assert "s3cret" not in str(caught.value)
        assert host.plugin.settings.depth == 3
        status = (await host.until_published("Status", 2))[-1]
        assert (status["state"], "the last good settings stay in force" in status["reason"]) == ("degraded", True)
        host.agent.stored.clear()
        with pytest.raises(SettingsError, match="KeyError"):
            async with host.plugin.edit_settings() as draft:
                draft.depth = 9
        assert host.agent.stored == {}
        await host.change_setting("depth", 4)
        assert host.plugin.settings.depth == 4


async def test_a_validate_that_fails_at_the_start_is_an_error_of_the_settings() -> None:
    with pytest.raises(SettingsError, match="Fragile: checking the values failed with KeyError"):
        async with hosted(F, settings={"depth": 9}):
            pytest.fail("it must not serve")


@on_mock_clock
async def test_a_change_that_breaks_a_rule_is_said_once_and_survives_a_reconnect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.agent.stored["token"] = "x"
        world.agent.stored["depth"] = "x3cret"
        await anyio.sleep(60)
        assert world.serving.status.state == "degraded"
        await world.reconnected(lambda: world.broker.cut("P"))
        assert world.serving.status.state == "degraded"
    assert [record.message for record in caplog.records].count("settings.refused") == 1


@on_mock_clock
async def test_an_agent_that_does_not_answer_while_serving_is_asked_again() -> None:
    world = World(P, settings=GIVEN)
    async with world.running():
        await world.served()
        world.agent.refusing = True
        world.agent.stored["depth"] = "7"
        await anyio.sleep(30)
        assert world.plugin.settings.depth == 3
        world.agent.refusing = False
        await anyio.sleep(10)
        assert world.plugin.settings.depth == 7


async def test_an_older_answer_never_replaces_a_newer_one() -> None:
    class Slow(MemoryAgent):
        gate: anyio.Event | None = None

        async def settings(self, plugin: str) -> dict[str, str]:
            values = await super().settings(plugin)
            if self.gate is not None:
                gate, self.gate = self.gate, None
                await gate.wait()
            return values

    agent = Slow("P", GIVEN)
    world = World(P, agent=agent)
    async with world.running():
        await world.served()
        gate = agent.gate = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.serving.settings.refresh)
            await anyio.wait_all_tasks_blocked()
            agent.stored["depth"] = "7"
            tasks.start_soon(world.serving.settings.refresh)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert world.plugin.settings.depth == 7
        assert len(world.plugin.changes) == 1


# --- writing ----------------------------------------------------------------------------------------------------------


async def test_edits_are_written_under_the_agents_keys_and_only_where_they_differ() -> None:
    async with hosted(P, settings=GIVEN) as host:
        async with host.plugin.edit_settings() as draft:
            draft.root, draft.depth = "/home", 3
        assert host.agent.stored == {"scan.root": "/home"}
        assert host.plugin.settings.root == "/home"
        async with host.plugin.edit_settings():
            pass
        assert len(host.plugin.changes) == 1


async def test_an_edit_that_breaks_a_rule_writes_nothing() -> None:
    async with hosted(P, settings=GIVEN) as host:
        with pytest.raises(SettingsError, match="depth"):
            async with host.plugin.edit_settings() as draft:
                draft.root, draft.depth = "/home", 11
        assert host.agent.stored == {}


async def test_an_edit_that_the_agent_refuses_raises_and_changes_nothing() -> None:
    async with hosted(P, settings=GIVEN) as host:
        host.agent.refusing = True
        with pytest.raises(AgentRefused):
            async with host.plugin.edit_settings() as draft:
                draft.depth = 5
        assert host.plugin.settings.depth == 3


async def test_a_revert_goes_back_to_the_plugins_file() -> None:
    async with hosted(P, settings=GIVEN | {"depth": 5}) as host:
        await host.change_setting("depth", 7)
        await host.plugin.revert_settings()
        assert (host.plugin.settings.depth, host.agent.stored) == (5, {})


async def test_the_agents_own_settings_can_be_read() -> None:
    async with hosted(P, settings=GIVEN) as host:
        assert (await host.plugin.agent_settings())["broker.port"] == "8675"
        assert await host.plugin.agent_setting("broker.port") == "8675"
        with pytest.raises(UnknownPlugin, match=r"has no setting 'nothing'"):
            await host.plugin.agent_setting("nothing")
