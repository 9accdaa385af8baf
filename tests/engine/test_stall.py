"""The stall guard: what blocks the event loop is named while it does, and what waits is left alone."""

import asyncio
import faulthandler
import gc
import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kepm_plugin import Change, Handler, Message, Plugin, Settings, background, every, setting
from kepm_plugin.contract import LOGGER_TOPIC
from kepm_plugin.dispatch import attempted, guarded
from kepm_plugin.stall import StallGuard, _telling, stall_guard
from kepm_plugin.testing import hosted
from tests.e2e.stall_plugin import length_for, match
from tests.engine.bench import on_asyncio
from tests.engine.world import World

LIMIT = 0.02
"""Seconds that a step may take where one is to be too long."""

PATIENT = 0.2
"""The same where none is to be: a busy machine may stop us for a while."""


class Heard:
    """Standard error, as the guard's thread writes to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.named = anyio.Event()
        """Set when what blocked goes on."""

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def spin_until(self, count: int) -> None:
        """Block until so much was said."""
        end = time.monotonic() + 10
        while len(self.lines) < count:
            assert time.monotonic() < end, "nothing was said"
        self.named.set()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def guard(heard: Heard) -> Iterator[StallGuard]:
    """A guard outside of any loop, for `attempted`."""
    with stall_guard(heard, LIMIT) as opened:
        yield opened


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the guard's thread goes to sleep without a deadline."""
    event, cancel = threading.Event(), faulthandler.cancel_dump_traceback_later

    def cancelling() -> None:
        cancel()
        if threading.current_thread().name == "kepm.stall":
            event.set()

    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", cancelling)
    return event


def blocked(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if record.message == "loop.blocked"]


# --- who is named -----------------------------------------------------------------------------------------------------


def plugin(**attributes: Any) -> type[Plugin]:
    return type("P", (Plugin,), {"id": "P", **attributes})


@on_asyncio  # Log records leave by another thread's way in, which a mock clock does not wait for.
async def test_a_handler_that_blocks_is_named_while_it_does_logged_when_it_has_ended_and_counted(heard: Heard) -> None:
    class P(Plugin):
        id = "P"

    @P.command("scan")
    class Scan(Handler[P]):
        async def handle(self, message: Message[dict[str, object]]) -> int:
            self.spin()
            return len(heard.lines)

        def spin(self) -> None:
            heard.spin_until(1)

    with stall_guard(heard, LIMIT) as guard:
        world = World(P, stalls=lambda: guard.stalls)
        async with world.running():
            await world.served()
            world.send("P/Commands/scan")
            await world.until(lambda: world.on("P/Responses/scan"))
            await world.until(lambda: "loop.blocked" in str(world.on(LOGGER_TOPIC)))
            world.stop()
            await world.ended()
    assert world.on("P/Responses/scan")[0]["result"] == 1, "named while it blocked"
    said = heard.lines[0].splitlines()
    line = Scan.handle.__code__.co_firstlineno
    assert f"Scan.handle ({__file__}, line {line}) has blocked the event loop for 0.0" in said[0]
    assert [one.strip() for one in said[1:5]] == [
        f'File "{__file__}", line {line + 1}, in handle',
        "self.spin()",
        f'File "{__file__}", line {line + 5}, in spin',
        "heard.spin_until(1)",
    ], "the stack begins with the handler, not with the loop"
    (record,) = (one for one in world.on(LOGGER_TOPIC) if one["message"] == "loop.blocked")
    assert record["level"] == "Warning"
    assert record["code"] == f"Scan.handle ({__file__}, line {line})"
    assert record["seconds"] > LIMIT
    assert "in spin_until" in record["stack"]
    assert world.on("P/Status")[-1]["counters"]["stalls"] == 1


@on_asyncio  # Log records leave by another thread's way in, which a mock clock does not wait for.
async def test_a_secret_in_the_lines_of_a_stack_is_masked_in_the_log(heard: Heard) -> None:
    class Secret(Settings):
        token: str = setting(secret=True)

    class P(Plugin):
        id = "P"
        settings: Secret

        @background()
        async def watch(self) -> None:
            heard.spin_until(1)  # correct-horse

    def told() -> list[Any]:
        return [one for one in world.on(LOGGER_TOPIC) if one["message"] == "loop.blocked"]

    with stall_guard(heard, LIMIT):
        world = World(P, settings={"token": "correct-horse"})
        async with world.running():
            await world.until(told)
    assert "# ***" in told()[0]["stack"]
    assert "correct-horse" not in str(told())


def in_lifespan(heard: Heard) -> type[Plugin]:
    @asynccontextmanager
    async def lifespan(self: object) -> AsyncGenerator[None]:
        heard.spin_until(1)
        yield

    return plugin(lifespan=lifespan)


def in_a_tick(heard: Heard) -> type[Plugin]:
    @every(seconds=0.001)
    async def tick(self: object) -> None:
        heard.spin_until(1)

    return plugin(tick=tick)


def after_waiting(heard: Heard) -> type[Plugin]:
    @background()
    async def watch(self: object) -> None:
        await anyio.sleep(0.001)
        heard.spin_until(1)

    return plugin(watch=watch)


def when_cancelled(heard: Heard) -> type[Plugin]:
    @background()
    async def watch(self: object) -> None:
        try:
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
        finally:
            heard.spin_until(1)

    return plugin(watch=watch)


def in_a_payload(heard: Heard) -> type[Plugin]:
    @dataclass
    class Request:
        depth: int = 1

        def __post_init__(self) -> None:
            heard.spin_until(1)

    kind = plugin()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[Request]) -> None: ...

    return kind


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (in_lifespan, "P.lifespan"),
        (in_a_tick, "P.tick"),
        (after_waiting, "P.watch"),
        (when_cancelled, "P.watch"),
        (in_a_payload, "Request.__post_init__"),
    ],
)
async def test_whatever_of_the_author_blocks_is_named(
    heard: Heard, make: Callable[[Heard], type[Plugin]], name: str
) -> None:
    kind = make(heard)
    with stall_guard(heard, LIMIT):
        async with hosted(kind) as host:
            if make is in_a_payload:
                await host.command("scan")
            with anyio.fail_after(20):
                await heard.named.wait()
    assert f"kepm-plugin: {name} ({__file__}, line " in heard.lines[0]


async def test_a_hook_that_a_handler_sets_off_is_in_the_stack_of_the_handler(heard: Heard) -> None:
    class Depth(Settings):
        depth: int = 1

    class P(Plugin):
        id = "P"
        settings: Depth

        async def on_settings_changed(self, change: Change[Depth]) -> None:
            heard.spin_until(1)

    @P.command("edit")
    class Edit(Handler[P]):
        async def handle(self, message: Message[None]) -> None:
            async with self.plugin.edit_settings() as draft:
                draft.depth = 2

    with stall_guard(heard, LIMIT) as guard:
        async with hosted(P) as host:
            assert (await host.command("edit"))["ok"]
    assert "kepm-plugin: Edit.handle (" in heard.lines[0]
    assert "in on_settings_changed" in heard.lines[0]
    assert guard.stalls == 1


@on_asyncio
@pytest.mark.parametrize("start", ["anyio", "asyncio"])
async def test_a_task_that_an_author_starts_is_named(heard: Heard, start: str) -> None:
    class P(Plugin):
        id = "P"

        async def child(self) -> None:
            await anyio.lowlevel.checkpoint()
            heard.spin_until(1)

        @background()
        async def watch(self) -> None:
            if start == "asyncio":
                await asyncio.create_task(self.child())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.child)

    with stall_guard(heard, LIMIT):
        async with hosted(P):
            with anyio.fail_after(20):
                await heard.named.wait()
    assert "kepm-plugin: P.child (" in heard.lines[0]


@on_asyncio
async def test_tasks_that_are_cancelled_before_they_begin_behave_as_without_the_guard(heard: Heard) -> None:
    began: list[str] = []

    async def child() -> None:
        began.append("child")
        await anyio.sleep_forever()

    async def author() -> str:
        task = asyncio.create_task(child(), name="mine")
        assert "child" in repr(task)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert began == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            tasks.cancel_scope.cancel()
        gc.collect()  # A coroutine that was never awaited would be an error now.
        return task.get_name()

    with stall_guard(heard, PATIENT):
        assert await guarded(author) == "mine"
    assert began == ["child"]


@on_asyncio
async def test_an_authors_task_factory_stays(heard: Heard) -> None:
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def child() -> int:
        return 7

    async def author() -> int:
        return await asyncio.create_task(child())

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    with stall_guard(heard, PATIENT):
        assert await guarded(author) == 7
    assert loop.get_task_factory() is make
    loop.set_task_factory(None)
    assert len(made) == 1
    assert made[0].endswith("child")


async def test_what_is_no_coroutine_can_be_awaited_too(heard: Heard) -> None:
    class Later:
        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            heard.spin_until(1)
            return 5

    with stall_guard(heard, LIMIT):
        assert await guarded(Later) == 5
    assert "Later" in heard.lines[0]


# --- how often --------------------------------------------------------------------------------------------------------


def test_a_stall_that_lasts_is_looked_at_again(heard: Heard, guard: StallGuard) -> None:
    def early() -> None:
        heard.spin_until(1)

    def late() -> None:
        heard.spin_until(2)

    def both() -> None:
        early()
        late()

    attempted(both)
    first, second = heard.lines
    assert "in early" in first
    assert "in late" in second
    assert guard.stalls == 1


def test_another_limit_counts_for_the_next_step(heard: Heard, guard: StallGuard) -> None:
    def block() -> None:
        end = time.monotonic() + 2 * LIMIT
        while time.monotonic() < end:
            pass

    guard.bound(60)
    attempted(block)
    assert (guard.stalls, heard.lines) == (0, [])
    guard.bound(LIMIT)
    attempted(block)
    assert guard.stalls == 1


def test_the_same_code_is_told_again_only_when_it_is_much_worse(
    heard: Heard, guard: StallGuard, caplog: pytest.LogCaptureFixture
) -> None:
    def block(count: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        heard.spin_until(count)
        while time.monotonic() < end:
            pass

    attempted(block, 1, 0)
    for _ in range(3):
        attempted(block, 0, 1.5 * LIMIT)
    assert (len(heard.lines), len(blocked(caplog)), guard.stalls) == (1, 1, 4)
    attempted(block, 2, 0)
    first, second = blocked(caplog)
    assert not hasattr(first, "untold")
    assert (second.untold, guard.stalls) == (3, 5)
    assert second.seconds > _telling.WORSE * first.seconds


def test_the_same_code_is_told_again_after_a_while(
    heard: Heard, guard: StallGuard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_telling, "QUIET", 0.0)
    attempted(heard.spin_until, 1)
    attempted(heard.spin_until, 2)
    assert len(blocked(caplog)) == 2


# --- the interpreter held ---------------------------------------------------------------------------------------------


def test_code_that_holds_the_interpreter_is_named_by_faulthandler_while_it_does_and_logged_afterwards(
    heard: Heard, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    length = length_for(0.6)

    def hold() -> None:
        match(length)

    with stall_guard(heard, 2 * LIMIT) as guard:
        attempted(hold)
    told = capfd.readouterr().err
    assert "Timeout (" in told
    assert f'File "{__file__}", line {hold.__code__.co_firstlineno + 1} in hold' in told
    (record,) = blocked(caplog)
    assert "hold (" in record.code
    assert record.seconds > 10 * LIMIT
    assert guard.stalls == 1


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_without_a_standard_error_that_has_a_descriptor_there_is_no_second_line(
    heard: Heard, stream: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with stall_guard(heard, LIMIT):
        attempted(heard.spin_until, 1)
    assert "spin_until" in heard.lines[0]


UNREAD = """
import logging, os, re, sys
from kepm_plugin.dispatch import attempted
from kepm_plugin.stall import stall_guard

logging.basicConfig(stream=sys.stdout, level=logging.CRITICAL)
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"." * 512)
except BlockingIOError:
    pass
os.set_blocking(2, True)

def deeper(calls):
    re.match("a*a*a*b", "a" * int(sys.argv[1])) if calls == 0 else deeper(calls - 1)

with stall_guard(len, 0.02) as guard:
    print("full", flush=True)
    assert len(sys.stdin.read(1)) == 1
    for _ in range(2):
        attempted(deeper, 200)
    print(guard.stalls, flush=True)
os._exit(0)
"""


def test_a_standard_error_that_nobody_reads_does_not_stop_the_plugin() -> None:
    """The second line would hang in the middle of a stack, and whoever put it off would hang with it."""
    process = subprocess.Popen(
        [sys.executable, "-c", UNREAD, str(length_for(0.3))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    ended = threading.Timer(20, process.kill)
    ended.start()
    try:
        assert process.stdout.readline() == "full\n"
        os.read(process.stderr.fileno(), 4096)  # less than the stack of `deeper`
        process.stdin.write("g")
        process.stdin.flush()
        assert process.stdout.readline() == "2\n"
        assert process.wait(10) == 0
    finally:
        ended.cancel()
        process.kill()
        process.communicate()


# --- what is left alone -----------------------------------------------------------------------------------------------


@on_asyncio
async def test_code_that_waits_is_not_told_and_does_not_keep_the_guard_awake(
    heard: Heard, rests: threading.Event
) -> None:
    class P(Plugin):
        id = "P"

        @background()
        async def watch(self) -> None:
            await anyio.sleep_forever()

    @P.command("scan")
    class Scan(Handler[P]):
        async def handle(self, message: Message[None]) -> None:
            await anyio.sleep(0.001)

    with stall_guard(heard, PATIENT) as guard:
        async with hosted(P) as host:
            for _ in range(2):
                assert (await host.command("scan"))["ok"]
                rests.clear()
                assert rests.wait(10)
                assert guard.asleep, "it waits for the next step, without a deadline"
    assert (heard.lines, guard.stalls) == ([], 0)


@on_asyncio
async def test_a_handler_in_a_thread_may_take_long(heard: Heard, rests: threading.Event) -> None:
    class P(Plugin):
        id = "P"

    @P.command("scan")
    class Scan(Handler[P]):
        def handle(self, message: Message[None]) -> bool:
            rests.clear()
            return rests.wait(10)

    with stall_guard(heard, PATIENT) as guard:
        async with hosted(P) as host:
            assert (await host.command("scan"))["result"], "the guard went to sleep meanwhile"
    assert (heard.lines, guard.stalls) == ([], 0)


async def test_without_a_guard_nothing_is_watched(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    with stall_guard(heard, LIMIT) as guard:
        pass

    def block() -> None:
        end = time.monotonic() + 3 * LIMIT
        while time.monotonic() < end:
            pass

    with caplog.at_level(logging.INFO):
        attempted(block)
    assert (heard.lines, guard.stalls, blocked(caplog)) == ([], 0, [])


def test_many_short_steps_are_no_long_one(heard: Heard) -> None:
    def short() -> None: ...

    with stall_guard(heard, PATIENT) as guard:
        end = time.monotonic() + 2 * PATIENT
        while time.monotonic() < end:
            attempted(short)
    assert (heard.lines, guard.stalls) == ([], 0)
