"""What `hosted()` tells the author of a test: slips, answers that do not come, and what failed in the plugin."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pydantic
import pytest

from kepm_plugin import Change, Handler, Message, Plugin, Publisher, Rejected, Settings, background, every, setting
from kepm_plugin.errors import BadPayload, NoAnswer, PayloadMismatch, SettingsError, UsageError
from kepm_plugin.message import Publication, Received
from kepm_plugin.testing import Hosted, MemoryBroker, hosted

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class DiskWatch(Plugin):
    id = "DiskWatch"
    seen = Publisher[str]("Seen")

    @every(seconds=1)
    async def report(self) -> None:
        await self.seen.publish("still here")


@DiskWatch.command("check")
class Check(Handler[DiskWatch]):
    async def handle(self, message: Message[None]) -> str:
        return "well"


@DiskWatch.command("wait")
class Wait(Handler[DiskWatch]):
    async def handle(self, message: Message[None]) -> None:
        await anyio.sleep(20)


@DiskWatch.command("clean/{disk}")
class Clean(Handler[DiskWatch]):
    async def handle(self, message: Message[None]) -> str:
        return message.params["disk"]


class Silent(Plugin):
    id = "Silent"


@Silent.topic("Commands/{verb}")
class Legacy(Handler[Silent]):
    async def handle(self, message: Message[None]) -> None: ...


# --- waiting ----------------------------------------------------------------------------------------------------------


@on_mock_clock
async def test_a_plugin_that_goes_on_publishing_does_not_put_the_deadline_off() -> None:
    async with hosted(DiskWatch) as host:
        started = anyio.current_time()
        with pytest.raises(NoAnswer) as caught:
            await host.command("wait")
        assert str(caught.value) == (
            "Wait has the command, but no answer on 'DiskWatch/Responses/wait' came within 5 s; published by "
            "the plugin so far: DiskWatch/Seen"
        )
        with pytest.raises(NoAnswer, match=r"only 0 of 1 message\(s\) on 'DiskWatch/Never' came within 5 s"):
            await host.until_published("Never")
        assert anyio.current_time() - started == pytest.approx(10)


# --- slips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "near"),
    [("chek", "; did you mean 'check'?"), ("zzz", ""), ("check/sda", "; did you mean 'check'?")],
)
async def test_an_unknown_command_fails_at_once_with_the_commands_there_are(command: str, near: str) -> None:
    async with hosted(DiskWatch) as host:
        with pytest.raises(UsageError) as caught:
            await host.command(command)
        assert str(caught.value) == (
            f"no handler takes 'DiskWatch/Commands/{command}'; its commands: check, wait, clean/{{disk}}{near}"
        )
        assert (await host.command("clean/sda"))["result"] == "sda"


async def test_a_command_that_is_a_topic_has_no_answer_to_wait_for() -> None:
    async with hosted(Silent) as host:
        with pytest.raises(UsageError, match="Legacy takes 'Silent/Commands/legacy' without an answer; use publish"):
            await host.command("legacy")


class Limits(Settings):
    limit: int = 5
    folder: str = setting(default="/tmp", key="scan.folder")


class Limited(Plugin):
    id = "Limited"
    settings: Limits


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        (Limited, "limmit", "Limits declares no key 'limmit'; its keys: limit, scan.folder; did you mean 'limit'?"),
        (Limited, "folder", "Limits.folder has the key 'scan.folder' at the agent; write that"),
        (
            DiskWatch,
            "limit",
            "the plugin declares no settings, so there is no 'limit'; annotate 'settings: MySettings'",
        ),
    ],
)
async def test_a_setting_that_the_plugin_does_not_declare_is_refused(kind: type[Plugin], key: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        async with hosted(kind, settings={key: 5}):
            pytest.fail("it must not run")
    assert str(caught.value) == said
    async with hosted(kind) as host:
        with pytest.raises(UsageError) as caught:
            await host.change_setting(key, 5)
    assert str(caught.value) == said


class Keys(Settings):
    token: str = setting(secret=True)
    spare: str = setting(default="", secret=True)


class Locked(Plugin):
    id = "Locked"
    settings: Keys


async def test_a_required_secret_that_the_test_does_not_give_is_named_and_not_waited_for() -> None:
    with pytest.raises(SettingsError, match=r"Keys: token is not set.*hosted") as caught:
        async with hosted(Locked, settings={"spare": "s"}):
            pytest.fail("it must not run")
    assert caught.value.key == "token"
    async with hosted(Locked, settings={"Token": "t"}) as host:
        assert host.plugin.settings.token == "t"


async def test_a_setting_is_known_in_any_case() -> None:
    async with hosted(Limited, settings={"LIMIT": 7}) as host:
        assert host.plugin.settings.limit == 7
        await host.change_setting("Scan.Folder", "/etc")
        assert host.plugin.settings.folder == "/etc"


async def test_hosted_takes_a_class() -> None:
    given: Any = DiskWatch()
    with pytest.raises(TypeError, match=r"hosted\(\) takes the class of a plugin, as in hosted\(MyPlugin\), not <"):
        async with hosted(given):
            pytest.fail("it must not run")


# --- the end ----------------------------------------------------------------------------------------------------------


def fail(error: type[BaseException]) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error("mine")

    return raise_it


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (fail(AssertionError), AssertionError),
        (fail(SystemExit), SystemExit),
        (lambda: pytest.fail("mine"), pytest.fail.Exception),
    ],
)
async def test_a_failing_test_fails_with_its_own_error_after_the_plugin_was_stopped(
    body: Callable[[], Any], error: type[BaseException]
) -> None:
    seen = list[Hosted[DiskWatch]]()

    async def failing() -> None:
        async with hosted(DiskWatch) as host:
            seen.append(host)
            body()

    with pytest.raises(error, match="mine"):
        await failing()
    assert seen[0].published("Status")[-1]["state"] == "stopped"


async def test_an_error_group_of_the_test_is_not_taken_apart() -> None:
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with hosted(DiskWatch):
            raise ExceptionGroup("mine", [ValueError("one"), ValueError("two")])
    assert len(caught.value.exceptions) == 2


@on_mock_clock
async def test_a_failing_test_does_not_wait_for_a_handler_that_hangs() -> None:
    async def failing() -> None:
        async with hosted(DiskWatch) as host:
            await host.publish("Commands/wait", {})
            await anyio.wait_all_tasks_blocked()
            raise AssertionError("mine")

    started = anyio.current_time()
    with pytest.raises(AssertionError, match="mine"):
        await failing()
    assert anyio.current_time() - started < 3


@on_mock_clock
async def test_a_test_that_is_cancelled_stops_the_plugin_too() -> None:
    seen = list[Hosted[DiskWatch]]()
    with anyio.move_on_after(2.5) as scope:
        async with hosted(DiskWatch) as host:
            seen.append(host)
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert seen[0].published("Status")[-1]["state"] == "stopped"


async def test_a_plugin_that_crashes_fails_the_test_with_its_own_error() -> None:
    crash = anyio.Event()

    class Crashing(Plugin):
        id = "Crashing"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.crash)
                yield

        async def crash(self) -> None:
            await crash.wait()
            raise ZeroDivisionError("its own")

    async def waiting() -> None:
        async with hosted(Crashing):
            crash.set()
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await waiting()
    assert caught.group_contains(ZeroDivisionError, match="its own")


# --- what fails in the plugin -----------------------------------------------------------------------------------------


class Fragile(Plugin):
    id = "Fragile"
    settings: Limits

    async def on_settings_changed(self, change: Change[Limits]) -> None:
        raise ValueError("the hook")


@Fragile.topic("Numbers")
class Numbers(Handler[Fragile]):
    async def handle(self, message: Message[int]) -> None:
        raise ValueError(f"number {message.payload}")


@Fragile.command("divide")
class Divide(Handler[Fragile]):
    async def handle(self, message: Message[dict[str, int]]) -> int:
        if message.payload["by"] == 1:
            raise Rejected("no need")
        return 1 // message.payload["by"]


@Fragile.topic("Slow")
class Slow(Handler[Fragile]):
    timeout = 0.01

    async def handle(self, message: Message[bytes]) -> None:
        await anyio.sleep(20)


@Fragile.topic("Thread")
class Thread(Handler[Fragile]):
    def handle(self, message: Message[bytes]) -> None:
        raise ValueError("in a thread")


async def run(do: Callable[[Hosted[Fragile]], Awaitable[object]], **options: Any) -> None:
    """Run a test body that does not look at what failed, after which nothing is under way."""
    async with hosted(Fragile, **options) as host:
        await do(host)
        await anyio.wait_all_tasks_blocked()


async def test_what_failed_can_be_looked_at_in_order_with_its_handler_and_then_fails_nothing() -> None:
    async with hosted(Fragile) as host:
        assert host.errors == []
        await host.publish("Numbers", 7)
        await host.until_errors()
        await host.publish("Numbers", b"seven")
        await host.until_errors(2)
        await host.change_setting("limit", 6)
        assert not (await host.command("divide", by=0))["ok"]
        await host.publish("Slow", b"")
        assert [(one.name, one.topic, type(one.error)) for one in await host.until_errors(5)] == [
            ("Numbers", "Fragile/Numbers", ValueError),
            ("Numbers", "Fragile/Numbers", PayloadMismatch),
            ("on_settings_changed", None, ValueError),
            ("Divide", "Fragile/Commands/divide", ZeroDivisionError),
            ("Slow", "Fragile/Slow", TimeoutError),
        ]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # the clock on trio does not wait for threads
async def test_what_a_thread_raised_counts() -> None:
    async with hosted(Fragile) as host:
        await host.publish("Thread", b"")
        [failed] = await host.until_errors()
    assert str(failed) == "Thread on 'Fragile/Thread': ValueError: in a thread"


async def test_what_failed_unseen_fails_the_test_at_the_end() -> None:
    with pytest.raises(AssertionError) as caught:
        await run(lambda host: host.publish("Numbers", 7))
    assert str(caught.value) == (
        "1 failure(s) in the plugin that the test has not looked at:\n"
        "  Numbers on 'Fragile/Numbers': ValueError: number 7\n"
        "Where they are meant, look at host.errors before the block ends, or pass strict=False."
    )
    assert isinstance(caught.value.__cause__, ValueError)


async def test_several_failures_come_together() -> None:
    async def do(host: Hosted[Fragile]) -> None:
        await host.publish("Numbers", 7)
        await host.command("divide", by=0)

    with pytest.raises(AssertionError, match=r"2 failure\(s\)") as caught:
        await run(do)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


async def test_what_fails_after_the_look_is_unseen() -> None:
    async def do(host: Hosted[Fragile]) -> None:
        assert host.errors == []
        await host.publish("Numbers", 7)

    with pytest.raises(AssertionError, match=r"1 failure\(s\)"):
        await run(do)


async def test_who_is_not_strict_passes() -> None:
    await run(lambda host: host.publish("Numbers", 7), strict=False)


async def test_a_no_whose_reason_the_caller_was_told_is_no_failure() -> None:
    async with hosted(Fragile) as host:
        assert (await host.command("divide", by=1))["error"] == "no need"
        assert not (await host.command("divide", by="one"))["ok"]


async def test_a_test_that_fails_itself_is_told_of_them_in_a_note() -> None:
    async def do(host: Hosted[Fragile]) -> None:
        assert (await host.command("divide", by=0))["ok"]

    with pytest.raises(AssertionError) as caught:
        await run(do)
    [note] = caught.value.__notes__
    assert note.startswith("In the plugin failed:\n  Divide on 'Fragile/Commands/divide': ZeroDivisionError: ")


async def test_methods_that_run_by_themselves_count() -> None:
    class Restless(Plugin):
        id = "Restless"

        @every(seconds=0.01)
        async def sweep(self) -> None:
            raise ValueError("the tick")

        @background()
        async def watch(self) -> None:
            raise ValueError("the background")

    async with hosted(Restless) as host:
        assert {one.name for one in await host.until_errors(2)} == {"sweep", "watch"}
        await host.stop()
        assert host.errors


async def test_of_two_plugins_each_has_its_own_failures() -> None:
    async with hosted(Fragile) as one, hosted(DiskWatch) as other:
        await one.publish("Numbers", 7)
        assert len(await one.until_errors()) == 1
        assert other.errors == []


# --- types ------------------------------------------------------------------------------------------------------------


@dataclass
class Alarm:
    level: int


class Model(pydantic.BaseModel):
    level: int = pydantic.Field(alias="Level")


class Typed(Plugin):
    id = "Typed"
    alarms = Publisher[Alarm]("Alarms")
    texts = Publisher[str]("Texts")
    raw = Publisher[bytes]("Raw")
    models = Publisher[Model]("Models")
    several = Publisher[list[Model]]("Several")
    anything = Publisher[Any]("Anything")


@Typed.command("count/{kind}")
class Count(Handler[Typed]):
    async def handle(self, message: Message[None]) -> int:
        given: Any = {"good": 5, "wrong": "five"}
        return given[message.params["kind"]]  # type: ignore[no-any-return]


@Typed.command("measure")
class Measure(Handler[Typed]):
    def handle(self, message: Message[None]) -> Alarm:
        given: Any = 5
        return given  # type: ignore[no-any-return]


@Typed.command("free")
class Free(Handler[Typed]):
    async def handle(self, message: Message[None]):  # type: ignore[no-untyped-def]
        return "whatever"


@pytest.mark.parametrize(
    ("publisher", "value"),
    [
        ("alarms", Alarm(1)),
        ("alarms", {"level": 1}),
        ("texts", "a text"),
        ("raw", b"\xff"),
        ("models", Model(Level=1)),
        ("several", [Model(Level=1)]),
        ("anything", {"a": 1}),
    ],
)
async def test_a_value_of_its_type_is_published(publisher: str, value: object) -> None:
    async with hosted(Typed) as host:
        await getattr(host.plugin, publisher).publish(value)
        assert len(host.published(publisher.title())) == 1 or await host.until_published(publisher.title())


@pytest.mark.parametrize(
    ("publisher", "value", "said"),
    [
        (
            "alarms",
            "a text",
            "Typed.alarms.publish() was given str, which is not what it says: the payload does not fit",
        ),
        ("alarms", Alarm(cast("int", "high")), "given Alarm, which is not what it says: the payload does not fit"),
        ("texts", 5, "Typed.texts.publish() was given int, which is not what it says: expected str, got int"),
        ("raw", "text", "expected bytes, got str"),
        ("models", {"level": 1}, "expected Model, got dict"),
    ],
    ids=["text", "field", "number", "bytes", "model"],
)
async def test_a_publisher_refuses_another_type(publisher: str, value: object, said: str) -> None:
    async with hosted(Typed) as host:
        with pytest.raises(BadPayload, match=re.escape(said)):
            await getattr(host.plugin, publisher).publish(value)
        with pytest.raises(BadPayload, match=re.escape(said)):
            getattr(host.plugin, publisher).publish_soon(value)


async def test_a_handler_that_returns_another_type_than_it_says_has_failed() -> None:
    async with hosted(Typed) as host:
        assert (await host.command("count/good"))["result"] == 5
        assert (await host.command("free"))["result"] == "whatever"
        assert (await host.command("count/wrong"))["error"] == "internal error"
        [failed] = host.errors
    assert str(failed.error).startswith("Count.handle returns str, which is not what it says: the payload does not fit")


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # as above
async def test_so_has_one_that_runs_in_a_thread() -> None:
    async with hosted(Typed) as host:
        assert not (await host.command("measure"))["ok"]
        assert [type(one.error) for one in host.errors] == [BadPayload]


async def test_other_objects_of_the_plugin_do_not_check() -> None:
    async with hosted(Typed):
        assert "alarms" not in vars(Typed())


async def test_a_session_that_a_confirmation_cuts_takes_nothing_more() -> None:
    """What waits is then the next one's, and would be lost to it."""
    broker, got = MemoryBroker(), list[bytes]()

    def deliver(batch: Sequence[Received]) -> None:
        got.extend(received.payload for received in batch)

    async with broker.connect("P", lambda _: None, clean=False) as session:
        await session.subscribe(["a"], 1)

        def cut() -> None:
            broker.route(Publication("a", b"1"))
            broker.cut("P")

        session.publish(Publication("b", b""), cut)
        await session.lost()
    async with broker.connect("P", deliver, clean=False):
        await anyio.wait_all_tasks_blocked()
    assert got == [b"1"]
