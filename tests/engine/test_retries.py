"""A message whose handler fails is tried again: how often, when, in which order, and what a later run makes of it."""

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin, Rejected, Retry
from kepm_plugin.dispatch._later import backoff
from kepm_plugin.errors import PluginDefinitionError
from kepm_plugin.message import Received
from kepm_plugin.store import Limits, Store, memory_store, open_store
from kepm_plugin.testing import hosted
from tests.engine.bench import AT, JSON, Bench, Gates, commanding, failing, fresh, on_asyncio, raising

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time is real, a handler's own retries come soon."""
    monkeypatch.setattr("kepm_plugin.dispatch._later.FIRST", 0.001)


def scripted(*outcomes: BaseException | object, **options: Any) -> tuple[type[Plugin], list[int]]:
    """Return a plugin whose command does one thing after the other, and the deliveries that it saw."""
    deliveries, left = list[int](), list(outcomes)

    def handle(message: Message[JSON]) -> object:
        deliveries.append(message.delivery)
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return commanding(handle, **options), deliveries


@pytest.mark.parametrize("journal", [True, False])
async def test_a_handler_that_fails_is_tried_as_often_as_it_says(store: Store, *, journal: bool) -> None:
    kind, deliveries = scripted(ValueError("a"), ValueError("b"), "done", retries=2)
    kind.journal = journal
    bench = Bench(kind, store)
    async with bench.serving():
        mid = bench.send("P/Commands/scan", {"correlationId": "7"})
        assert (await bench.answer())["result"] == "done"
        await anyio.wait_all_tasks_blocked()
    assert deliveries == [1, 2, 3]
    assert bench.acknowledged == [mid]
    assert len(bench.answers) == 1
    counters = bench.dispatcher.counters
    assert (counters.handled, counters.retried, counters.failed) == (1, 2, 0)
    assert (store.unfinished_count(), bench.reasons()) == (0, [])


async def test_when_the_tries_are_used_up_it_is_a_dead_letter(store: Store) -> None:
    kind, deliveries = scripted(ValueError("a"), ValueError("the last one"), retries=1)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "internal error"
    assert deliveries == [1, 2]
    [letter] = store.dead_letters()
    assert letter.reason == "failed"
    assert "the last one" in letter.details
    assert (bench.dispatcher.counters.retried, bench.dispatcher.counters.failed) == (1, 1)


async def test_a_handler_that_takes_too_long_is_tried_again(store: Store) -> None:
    kind, calls = fresh(), list[int]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.01
        retries = 1

        async def handle(self, message: Message[JSON]) -> None:
            calls.append(message.delivery)
            await anyio.sleep_forever()

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "timed out after 0.01 s"
    assert calls == [1, 2]
    assert bench.reasons() == ["timeout"]
    assert bench.dispatcher.counters.timed_out == 1


@on_asyncio
async def test_a_thread_that_outlives_its_timeout_ends_before_the_next_try(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, running, most = fresh(), list[int](), list[int]()
    put_off = threading.Event()

    def postpone(*_: object) -> None:
        put_off.set()

    monkeypatch.setattr(store, "postpone", postpone)

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.02
        retries = 1

        def handle(self, message: Message[JSON]) -> None:
            running.append(message.delivery)
            most.append(len(running))
            put_off.wait(5)
            running.remove(message.delivery)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer()
    assert most == [1, 1]


@pytest.mark.parametrize("error", [Rejected("no"), Retry(after=0.01)])
async def test_what_a_handler_decides_is_not_a_failure(store: Store, error: Exception) -> None:
    kind, deliveries = scripted(error, "done", retries=0)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        answer = await bench.answer()
    again = isinstance(error, Retry)
    assert answer["ok"] is again
    assert deliveries == ([1, 2] if again else [1])
    assert bench.reasons() == []


@on_mock_clock
async def test_a_retry_comes_when_the_handler_said(store: Store) -> None:
    times = list[float]()

    def handle(message: Message[JSON]) -> str:
        times.append(anyio.current_time())
        if message.delivery < 3:
            raise Retry("the server is busy", after=600 * message.delivery)
        return "done"

    bench = Bench(commanding(handle), store)
    started = anyio.current_time()
    async with bench.serving():
        bench.send("P/Commands/scan")
        await anyio.sleep(2000)
    assert [round(each - started) for each in times] == [0, 600, 1800]


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 86_401])
def test_a_retry_that_never_comes_is_refused(after: float) -> None:
    with pytest.raises(PluginDefinitionError, match=r"give seconds from 0 to 86400"):
        Retry(after=after)


def test_each_of_the_retries_waits_longer_than_the_one_before_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._later.FIRST", 1.0)
    assert [backoff(attempts) for attempts in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(5000) == 60


# --- order ------------------------------------------------------------------------------------------------------------


@on_mock_clock
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["a1", "a1", "b1", "a2"]),
        ({"order_by": "host"}, ["a1", "b1", "a1", "a2"]),
        ({"order_by": "host", "concurrency": 1}, ["a1", "b1", "a1", "a2"]),
        ({"concurrency": 2}, ["a1", "b1", "a2", "a1"]),
    ],
)
async def test_what_waits_for_another_try_keeps_the_order_that_was_promised(
    store: Store, options: dict[str, Any], expected: list[str]
) -> None:
    kind, seen = fresh(), list[str]()

    @kind.topic("Events/{host}")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            seen.append(message.payload)
            if message.payload == "a1" and message.delivery == 1:
                raise Retry(after=5)

    for name, value in options.items():
        setattr(Event, name, value)
    bench = Bench(kind, store)
    async with bench.serving():
        for payload in ("a1", "b1", "a2"):
            bench.send(f"P/Events/{payload[0]}", payload.encode())
        await anyio.sleep(60)
    assert seen == expected


@on_mock_clock
async def test_several_wait_at_a_time_and_the_one_that_is_due_first_comes_first(store: Store) -> None:
    kind, seen = fresh(), list[str]()

    @kind.topic("Events/{host}")
    class Event(Handler[Plugin]):
        concurrency = 9

        async def handle(self, message: Message[str]) -> None:
            if message.delivery == 1:
                raise Retry(after=float(message.payload))
            seen.append(message.payload)

    bench = Bench(kind, store)
    async with bench.serving():
        for payload in ("30", "10", "20"):
            bench.send("P/Events/x", payload.encode())
        await anyio.sleep(60)
    assert seen == ["10", "20", "30"]


# --- kills, losses, stops ---------------------------------------------------------------------------------------------


async def test_a_later_run_waits_for_the_rest_and_knows_the_earlier_tries(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        kind, deliveries = scripted(Retry(after=3600))
        bench = Bench(kind, store)
        async with bench.serving():
            bench.send("P/Commands/scan")
            bench.send("P/Commands/scan", {"second": True})
            await anyio.wait_all_tasks_blocked()
    assert deliveries == [1]
    with open_store(tmp_path) as store:
        kind, deliveries = scripted("a", "b")
        bench = Bench(kind, store)
        bench.dispatcher.replay()
        async with bench.serving():
            await anyio.wait_all_tasks_blocked()
        assert deliveries == [], "neither the one that is put off nor what came after it"
    with open_store(tmp_path) as store:
        [first, _] = store.unfinished()
        store.postpone(first.id, first.attempts, 0.0)
    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.dispatcher.replay()
        async with bench.serving():
            await bench.answer(1)
    assert deliveries == [3, 2], "one more than tried for the first, which was tried before"


async def test_runs_that_end_in_order_while_it_is_put_off_are_no_crashes(tmp_path: Path) -> None:
    for run in range(8):
        with open_store(tmp_path) as store:
            kind, deliveries = scripted(Retry(after=0.0), Retry(after=3600))
            bench = Bench(kind, store)
            assert bench.dispatcher.replay() == (1 if run else 0)
            if run == 0:
                bench.send("P/Commands/scan")
            async with bench.serving():
                await bench.until_idle()
            [row] = store.unfinished() or store.read_from(0, 9)
            store.postpone(row.id, row.attempts, 0.0)
            assert deliveries, "it is tried in each run"
            assert bench.dispatcher.counters.crashed == 0


@on_mock_clock
async def test_a_clock_that_was_set_back_does_not_put_it_off_for_ever(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        [row] = store.journal([Bench(commanding(lambda _: None), store).message("P/Commands/scan")])
        store.postpone(row.id, 1, AT * 2)
    with open_store(tmp_path) as store:
        bench = Bench(commanding(lambda _: "done"), store)
        bench.dispatcher.replay()
        async with bench.serving():
            await anyio.sleep(80_000)
            assert not bench.answers
            await anyio.sleep(10_000)
            assert bench.answers


async def test_it_is_tried_again_though_the_store_cannot_note_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(store, monkeypatch, "postpone")
    kind, deliveries = scripted(Retry(after=0.01), "done")
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer()
    assert deliveries == [1, 2]
    assert ("store", "disk full") in bench.troubles


@on_mock_clock
async def test_what_is_put_off_without_a_journal_is_given_up_where_the_broker_sends_it_again(store: Store) -> None:
    kind, deliveries = scripted(Retry(after=60), "again", "and the next")
    kind.journal = False
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.new_session(True)
        mids = [bench.send("P/Commands/scan") for _ in range(2)]
        await bench.answer(1)
        await anyio.wait_all_tasks_blocked()
    assert deliveries == [1, 1, 1]
    assert bench.acknowledged == mids


async def test_what_is_put_off_at_qos_0_when_the_plugin_stops_is_counted(store: Store) -> None:
    kind, gates = fresh(), Gates()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            await gates.pass_through(message.payload)
            raise Retry(after=60)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Events", b"a", qos=0)
        await gates.open("a")
        bench.send("P/Events", b"b", qos=0)
        bench.dispatcher.close()
    assert bench.dispatcher.counters.dropped == 2


async def test_one_that_is_running_when_the_plugin_stops_is_counted_too(store: Store) -> None:
    kind, gates = fresh(), Gates()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            await gates.pass_through(message.payload)
            raise Retry(after=60)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Events", b"a", qos=0)
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.close()
        await gates.open("a")
    assert bench.dispatcher.counters.dropped == 1


# --- age --------------------------------------------------------------------------------------------------------------


@on_mock_clock
@pytest.mark.parametrize("when", ["at the start", "while it is put off"])
async def test_what_waits_for_too_long_is_a_dead_letter_and_a_command_is_told(tmp_path: Path, when: str) -> None:
    now = AT

    def clock() -> float:
        return now

    limits = Limits(journal_age=3600)
    with open_store(tmp_path, limits=limits, now=clock) as store:
        bench = Bench(commanding(raising(Retry(after=1800))), store)
        bench.send("P/Commands/scan", {"correlationId": "7"})
        if when == "while it is put off":
            async with bench.serving():
                await anyio.sleep(2000)
                assert bench.dispatcher.counters.retried == 2
                now += 3601
                await anyio.sleep(2000)
    if when == "at the start":
        now += 3601
        with open_store(tmp_path, limits=limits, now=clock) as store:
            bench = Bench(commanding(lambda _: "not called"), store)
            bench.dispatcher.replay()
            async with bench.serving():
                await bench.answer()
    assert await bench.answer() == {"correlationId": "7", "ok": False, "error": "it was not handled in time"}
    assert bench.dispatcher.counters.too_old == 1
    with open_store(tmp_path) as store:
        assert (store.unfinished_count(), [letter.reason for letter in store.dead_letters()]) == (0, ["too old"])


async def test_a_machine_that_did_not_know_the_time_when_it_came_says_nothing_of_its_age(store: Store) -> None:
    bench = Bench(commanding(lambda _: "done"), store)
    async with bench.serving():
        bench.receive(Received("P/Commands/scan", b"{}", 1, mid=1, received_at=60.0))
        assert (await bench.answer())["result"] == "done"


async def test_a_retry_is_no_failure_of_a_test() -> None:
    kind, deliveries = scripted(Retry(after=0), "done")
    async with hosted(kind) as host:
        assert (await host.command("scan"))["result"] == "done"
    assert deliveries == [1, 2]


async def test_a_store_in_memory_gives_up_nothing_by_itself() -> None:
    with memory_store() as store:
        assert store.expired() == []
