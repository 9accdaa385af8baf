"""What an author's code raises that is no `Exception`: it must not end more than the call that it came from."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from kepm_plugin import Gap, Handler, Message, Plugin, background, every
from kepm_plugin.store import Store
from tests.engine.bench import JSON, Bench, fresh, on_asyncio
from tests.engine.world import World


async def await_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    await task


async def cancel_in_a_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anyio.sleep(1)
        await await_a_cancelled_task()


async def cancel_in_a_group_of_errors() -> None:
    raise BaseExceptionGroup("several", [asyncio.CancelledError(), ValueError()])


async def exit_the_program() -> None:
    sys.exit(3)


async def exit_in_a_group_of_errors() -> None:
    raise BaseExceptionGroup("several", [SystemExit(3), ValueError()])


@on_asyncio
@pytest.mark.parametrize(
    ("escape", "named"),
    [
        (await_a_cancelled_task, "cancelled from inside"),
        (cancel_in_a_group, "cancelled from inside"),
        (cancel_in_a_group_of_errors, "cancelled from inside"),
        (exit_the_program, "SystemExit: 3"),
        (exit_in_a_group_of_errors, "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_it_is_an_internal_error_and_the_next_message_is_handled(
    store: Store, escape: Callable[[], Awaitable[None]], named: str, timeout: float | None
) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> str:
            if message.payload:
                await escape()
            return "fine"

    Scan.timeout = timeout
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"bad": True})
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "internal error"
        assert (await bench.answer(1))["result"] == "fine"
    [letter] = store.dead_letters()
    assert letter.reason == "failed"
    assert named in letter.details
    assert store.unfinished_count() == 0


@on_asyncio
@pytest.mark.parametrize("timeout", [None, 5.0])
async def test_sys_exit_in_a_thread_is_an_internal_error_too(store: Store, timeout: float | None) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        def handle(self, message: Message[JSON]) -> None:
            sys.exit("no more")

    Scan.timeout = timeout
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "internal error"
    assert "SystemExit: no more" in store.dead_letters()[0].details


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])
async def test_a_keyboard_interrupt_ends_everything(store: Store, error: BaseException) -> None:
    kind = fresh()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            raise BaseExceptionGroup("", [error])  # bare, asyncio itself would end the loop of this test

    bench = Bench(kind, store)
    bench.send("P/Events")
    with anyio.fail_after(5), pytest.raises(BaseExceptionGroup) as caught:
        await bench.dispatcher.serve()
    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert store.unfinished_count() == 1


@on_asyncio
async def test_a_loop_that_ends_cancels_a_call_and_leaves_its_message_in_the_journal(store: Store) -> None:
    kind, running, begun = fresh(), list[asyncio.Task[None] | None](), asyncio.Event()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            running.append(asyncio.current_task())
            begun.set()
            await anyio.sleep_forever()

    bench = Bench(kind, store)
    bench.send("P/Events")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.dispatcher.serve)
            await begun.wait()
            [worker] = running
            assert worker is not None
            worker.cancel()  # as asyncio.run does with all that is left
            bench.dispatcher.close()
    assert (store.unfinished_count(), store.dead_letters()) == (1, [])


@on_asyncio
@pytest.mark.parametrize("escape", [await_a_cancelled_task, exit_the_program])
async def test_methods_that_run_by_themselves_and_hooks_are_no_different(
    escape: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    class P(Plugin):
        id = "P"

        @every(seconds=0.001)
        async def sweep(self) -> None:
            await escape()

        @background()
        async def watch(self) -> None:
            await escape()

        async def on_reconnect(self, gap: Gap) -> None:
            await escape()

    said = {"tick.failed", "background.failed", "hook.failed"}
    world = World(P)
    async with world.running():
        await world.served()
        await world.reconnected(lambda: world.broker.cut("P"))
        with anyio.fail_after(5):
            while not said <= {record.message for record in caplog.records}:
                await anyio.lowlevel.checkpoint()
        assert (world.outcome, world.error) == (None, None)
