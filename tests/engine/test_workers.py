"""The tasks that handlers run in: few, but no handler meets what another one left in its task, or waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.store import Store
from tests.engine.bench import Bench, Gates, fresh, gated, noting, on_asyncio

mark: ContextVar[str] = ContextVar("mark", default="none")


def handling(kind: type[Plugin], topic: str, handle: Callable[[str], Awaitable[None]]) -> None:
    @kind.topic(topic)
    class Handling(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            await handle(message.topic)


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_handler_sets_in_its_context_is_gone_with_the_call_but_there_after_a_wait(
    store: Store, *, waits: bool
) -> None:
    kind, seen = fresh(), list[tuple[str, str]]()

    async def handle(topic: str) -> None:
        before = mark.get()
        mark.set(topic)
        if waits:
            await anyio.lowlevel.checkpoint()
        seen.append((before, mark.get()))

    for topic in ("A", "B"):
        handling(kind, topic, handle)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(*(bench.message(topic) for topic in ("P/A", "P/A", "P/B", "P/B")))
        await bench.until_idle()
        bench.send("P/A")
        await bench.until_idle()
    assert sorted(seen) == [("none", "P/A")] * 3 + [("none", "P/B")] * 2


@on_asyncio
async def test_handlers_that_never_wait_share_a_task_and_one_that_has_waited_keeps_its_own(store: Store) -> None:
    kind, tasks = fresh(), dict[str, set[int]]()

    async def quick(topic: str) -> None:
        tasks.setdefault(topic, set()).add(id(asyncio.current_task()))

    async def slow(topic: str) -> None:
        await quick(topic)
        await anyio.lowlevel.checkpoint()

    for number in range(50):
        handling(kind, f"Quick/t{number}", quick)
    handling(kind, "Slow", slow)
    bench = Bench(kind, store)
    others = len(asyncio.all_tasks())
    async with bench.serving():
        for _ in range(3):
            bench.send("P/Slow")
            await bench.until_idle()
            bench.receive(*(bench.message(f"P/Quick/t{number}") for number in range(50)))
            await bench.until_idle()
        assert len(asyncio.all_tasks()) - others < 10
    slow_ones, quick_ones = tasks.pop("P/Slow"), {one for used in tasks.values() for one in used}
    assert (len(tasks), len(slow_ones), len(quick_ones)) == (50, 1, 1)
    assert slow_ones.isdisjoint(quick_ones)


async def test_what_is_ready_behind_one_that_waits_goes_on(store: Store) -> None:
    kind, gates, seen = fresh(), Gates(), list[tuple[str, str]]()
    gated(kind, gates)
    names = [f"Quick/t{number}" for number in range(5)]
    for name in names:
        noting(kind, name, name, seen)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(bench.message("P/Events/x", b"waits"), *(bench.message(f"P/{name}") for name in names))
        await bench.until_idle()
        assert (len(seen), gates.running) == (5, ["waits"])
        bench.receive(*(bench.message(f"P/{name}") for name in names))
        await bench.until_idle()
        assert (len(seen), gates.running) == (10, ["waits"])
        await gates.open("waits")
    assert store.unfinished_count() == 0


async def test_lanes_that_are_ready_when_it_is_closed_leave_their_messages_in_the_journal(store: Store) -> None:
    kind, seen = fresh(), list[str]()

    async def closes(topic: str) -> None:
        seen.append(topic)
        bench.dispatcher.close()

    for topic in ("A", "B", "C"):
        handling(kind, topic, closes)
    bench = Bench(kind, store)
    with anyio.fail_after(5):
        async with bench.serving():
            bench.receive(*(bench.message(f"P/{topic}") for topic in "ABC"))
            await bench.until_idle()
    assert (seen, store.unfinished_count()) == (["P/A"], 2)
