"""What `hosted()` tells the author of a test: slips, answers that do not come, and what failed in the plugin."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin, Publisher, Settings, every, setting
from kepm_plugin.errors import NoAnswer, UsageError
from kepm_plugin.testing import Hosted, hosted

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


@DiskWatch.topic("Commands/legacy")
class Legacy(Handler[DiskWatch]):
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
        with pytest.raises(UsageError, match="Legacy takes 'DiskWatch/Commands/legacy' without an answer"):
            await host.command("legacy")
        assert (await host.command("clean/sda"))["result"] == "sda"


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
