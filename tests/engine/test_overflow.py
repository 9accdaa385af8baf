"""At QoS 0 memory is bounded, what does not fit goes as the handler says, and every message is counted once."""

import tracemalloc
from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.dispatch._lane import LIMIT_BYTES
from kepm_plugin.message import Received
from kepm_plugin.store import Store, memory_store
from tests.engine.bench import Bench, Gates, fresh


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three messages of one handler, the running one included."""
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 3)


def gated(kind: type[Plugin], **options: Any) -> Gates:
    gates = Gates()

    @kind.topic("Events/{host}")
    class Gated(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            await gates.pass_through(message.payload)

    for name, value in options.items():
        setattr(Gated, name, value)
    return gates


@pytest.mark.parametrize(
    ("overflow", "handled"),
    [("drop_oldest", ["a", "d", "e"]), ("drop_new", ["a", "b", "c"]), ("coalesce", ["a", "e"])],
)
async def test_what_goes_is_what_the_handler_says(store: Store, three: None, overflow: str, handled: list[str]) -> None:
    kind = fresh()
    gates = gated(kind, overflow=overflow)
    bench = Bench(kind, store)
    async with bench.serving():
        for payload in "abcde":
            bench.send("P/Events/x", payload.encode(), qos=0)
            await anyio.wait_all_tasks_blocked()
        for payload in "abcde":
            await gates.open(payload)
    assert gates.ended == handled
    counters = bench.dispatcher.counters
    assert (counters.handled, counters.dropped) == (len(handled), 5 - len(handled))


async def test_coalescing_keeps_the_newest_of_each_topic_in_the_place_of_the_first(store: Store, three: None) -> None:
    kind = fresh()
    gates = gated(kind, overflow="coalesce")
    bench = Bench(kind, store)
    async with bench.serving():
        for topic, payload in (("x", "a"), ("y", "b"), ("z", "c"), ("y", "long as it is"), ("y", "d"), ("w", "e")):
            bench.send(f"P/Events/{topic}", payload.encode(), qos=0)
            await anyio.wait_all_tasks_blocked()
        for payload in "abcde":
            await gates.open(payload)
    assert gates.ended == ["a", "c", "e"], "the oldest went, when there was a topic too many"
    assert bench.dispatcher.counters.dropped == 3


async def test_what_is_journalled_is_never_dropped_for_it(store: Store, three: None) -> None:
    kind = fresh()
    gates = gated(kind, overflow="drop_oldest")
    bench = Bench(kind, store)
    async with bench.serving():
        for payload in "abc":
            bench.send("P/Events/x", payload.encode())
        bench.send("P/Events/x", b"lost", qos=0)
        for payload in "abc":
            await gates.open(payload)
    assert gates.ended == ["a", "b", "c"]
    assert bench.dispatcher.counters.dropped == 1


async def test_in_one_reading_the_order_of_both_kinds_is_kept(store: Store) -> None:
    kind, seen = fresh(), list[str]()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            seen.append(message.payload)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(
            *(bench.message("P/Events", name.encode(), qos) for name, qos in zip("abcd", (0, 1, 0, 1), strict=True))
        )
        await anyio.wait_all_tasks_blocked()
    assert seen == ["a", "b", "c", "d"]


@pytest.mark.parametrize("order_by", [None, "host"])
async def test_what_was_dropped_takes_no_memory_however_long_a_handler_waits(
    store: Store, order_by: str | None
) -> None:
    kind = fresh()
    gates = gated(kind, order_by=order_by, concurrency=1)
    bench = Bench(kind, store)
    async with bench.serving():
        for qos in (1, 1):  # one that runs, one that cannot be dropped
            bench.send("P/Events/x", b"waits", qos=qos)
        await anyio.wait_all_tasks_blocked()
        tracemalloc.start()
        for _ in range(1_000):
            bench.receive(Received("P/Events/x", bytes(100_000)))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 3 * LIMIT_BYTES
        assert bench.dispatcher.counters.dropped > 800
        bench.dispatcher.close()
        await gates.open("waits")


async def test_order_by_keeps_its_order_over_what_was_dropped(store: Store, three: None) -> None:
    kind = fresh()
    gates = gated(kind, overflow="drop_oldest", order_by="host", concurrency=2)
    bench = Bench(kind, store)
    async with bench.serving():
        for topic, payload in (("x", "x1"), ("y", "y1"), ("x", "x2"), ("x", "x3"), ("y", "y2")):
            bench.send(f"P/Events/{topic}", payload.encode(), qos=0)
            await anyio.wait_all_tasks_blocked()
        for payload in ("x1", "y1", "x2", "x3", "y2"):
            await gates.open(payload)
    assert gates.ended == ["x1", "y1", "y2"]


@given(
    overflow=st.sampled_from(["drop_oldest", "drop_new", "coalesce"]),
    order_by=st.sampled_from([None, "host"]),
    concurrency=st.integers(1, 3),
    sent=st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 1), st.booleans()), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_everything_that_was_sent_is_handled_or_counted_and_order_is_kept(
    overflow: str, order_by: str | None, concurrency: int, sent: list[tuple[str, int, bool]]
) -> None:
    async def run() -> None:
        kind, seen = fresh(), list[tuple[str, int]]()

        @kind.topic("Events/{host}")
        class Event(Handler[Plugin]):
            async def handle(self, message: Message[int]) -> None:
                await anyio.lowlevel.checkpoint()
                seen.append((message.params["host"], message.payload))

        for name, value in {"overflow": overflow, "order_by": order_by, "concurrency": concurrency}.items():
            setattr(Event, name, value)
        with memory_store() as store:
            bench = Bench(kind, store)
            async with bench.serving():
                for number, (host, qos, rest) in enumerate(sent):
                    bench.send(f"P/Events/{host}", number, qos=qos)
                    if rest:
                        await anyio.lowlevel.checkpoint()
                await anyio.wait_all_tasks_blocked()
            counters = bench.dispatcher.counters
        assert counters.handled + counters.dropped == len(sent)
        assert counters.handled == len(seen)
        safe = {number for number, (_, qos, _) in enumerate(sent) if qos}
        assert safe <= {number for _, number in seen}, "at QoS 1 nothing goes"
        assert max(Counter(number for _, number in seen).values(), default=1) == 1
        if concurrency == 1 or order_by:
            for host in "xyz":
                for at in (0, 1):  # Order is kept at each QoS (MQTT 5.0, section 4.6); coalescing changes places.
                    numbers = [number for where, number in seen if where == host and sent[number][1] == at]
                    assert numbers == sorted(numbers) or (at == 0 and overflow == "coalesce")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kepm_plugin.dispatch._lane.LIMIT", 4)
        patch.setattr("kepm_plugin.dispatch._lane.LOW", 2)
        anyio.run(run, backend="trio")
