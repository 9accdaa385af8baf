"""From a received message to one handler call, and what comes of it: answer, dead letter, acknowledgement."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kepm_plugin import Handler, Message, Plugin, Rejected
from kepm_plugin.message import Received
from kepm_plugin.store import Limits, Store, memory_store, open_store
from kepm_plugin.testing import hosted
from tests.engine.bench import AT, JSON, Bench, Gates, commanding, failing, fresh, gated, noting, on_asyncio, raising

# --- routing ----------------------------------------------------------------------------------------------------------


async def test_the_most_specific_handler_alone_gets_a_message(store: Store) -> None:
    kind, seen = fresh(), list[tuple[str, str]]()
    noting(kind, "Events/{host}", "one level", seen)
    noting(kind, "Events/web1", "literal", seen)
    noting(kind, "Events/{rest:path}", "the rest", seen)
    bench = Bench(kind, store)
    async with bench.serving():
        for topic in ("P/Events/web1", "P/Events/db", "P/Events/db/disk", "P/Events"):
            bench.send(topic)
        await anyio.wait_all_tasks_blocked()
    assert sorted(seen) == [
        ("literal", "P/Events/web1"),
        ("one level", "P/Events/db"),
        ("the rest", "P/Events"),
        ("the rest", "P/Events/db/disk"),
    ]
    assert bench.dispatcher.counters.handled == 4


async def test_overlapping_handlers_handle_a_message_once_where_the_broker_delivers_per_subscription() -> None:
    kind, seen = fresh(), list[tuple[str, str]]()
    noting(kind, "Events/{host}", "one level", seen)
    noting(kind, "Events/web1", "literal", seen)
    noting(kind, "Events/{rest:path}", "the rest", seen)
    async with hosted(kind) as host:
        for topic in ("Events/web1", "Events/db", "Events/a/b"):
            await host.publish(topic, b"")
        await anyio.wait_all_tasks_blocked()
    assert sorted(seen) == [("literal", "P/Events/web1"), ("one level", "P/Events/db"), ("the rest", "P/Events/a/b")]


async def test_a_message_carries_what_the_session_read(store: Store) -> None:
    kind, seen = fresh(), list[Message[JSON]]()

    @kind.topic("Events/{host}/{path:path}")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.append(message)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Events/web1/var/log", {"a": 1}, properties={"trace": "7"})
        await anyio.wait_all_tasks_blocked()
    [message] = seen
    assert message == Message(
        payload={"a": 1},
        topic="P/Events/web1/var/log",
        params={"host": "web1", "path": "var/log"},
        qos=1,
        received_at=AT,
        properties={"trace": "7"},
    )


async def test_what_nobody_takes_is_acknowledged_and_counted(store: Store) -> None:
    bench, tapped = Bench(fresh(), store), list[str]()
    untap = bench.dispatcher.tap("P/Watched/+", lambda received: tapped.append(received.topic))
    mids = [bench.send("P/Unknown"), bench.send("P/Watched/a"), bench.send("X/Responses/y", b'"direct"')]
    assert (bench.acknowledged, bench.dispatcher.counters.unrouted) == (mids, 1)
    assert (tapped, bench.direct) == (["P/Watched/a"], [b'"direct"'])
    untap()
    bench.send("P/Watched/b")
    assert (tapped, bench.dispatcher.counters.unrouted) == (["P/Watched/a"], 2)


async def test_a_tapped_message_reaches_its_handler_too(store: Store) -> None:
    kind, seen, tapped = fresh(), list[tuple[str, str]](), list[str]()
    noting(kind, "Events/{host}", "handler", seen)
    bench = Bench(kind, store)
    bench.dispatcher.tap("P/#", lambda received: tapped.append(received.topic))
    async with bench.serving():
        bench.send("P/Events/a")
        await anyio.wait_all_tasks_blocked()
    assert (tapped, seen) == (["P/Events/a"], [("handler", "P/Events/a")])


@pytest.mark.parametrize(("retained", "handled"), [("handle", ["old", "new"]), ("skip", ["new"])])
async def test_a_handler_says_whether_it_wants_retained_messages(
    store: Store, retained: Any, handled: list[str]
) -> None:
    kind, seen = fresh(), list[str]()

    @kind.topic("Config")
    class Config(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            seen.append(message.payload)
            assert message.retained == (message.payload == "old")

    Config.retained = retained
    bench = Bench(kind, store)
    async with bench.serving():
        mids = [bench.send("P/Config", b"old", retained=True), bench.send("P/Config", b"new")]
        await anyio.wait_all_tasks_blocked()
    assert (seen, bench.acknowledged) == (handled, mids)


# --- order and concurrency --------------------------------------------------------------------------------------------


async def test_one_call_at_a_time_keeps_the_order(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(*(bench.message("P/Events/x", name.encode()) for name in "ab"))
        bench.send("P/Events/x", b"c")
        for name in "abc":
            await anyio.wait_all_tasks_blocked()
            assert gates.running == [name]
            [busy] = bench.dispatcher.busy()
            assert busy.endswith("Gated")
            await gates.open(name)
    assert gates.ended == ["a", "b", "c"]
    assert bench.dispatcher.busy() == []


async def test_concurrency_is_how_many_calls_run_at_a_time(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates, concurrency=2)
    bench = Bench(kind, store)
    async with bench.serving():
        for name in "abc":
            bench.send("P/Events/x", name.encode())
        await anyio.wait_all_tasks_blocked()
        assert gates.running == ["a", "b"]
        await gates.open("b")
        assert gates.running == ["a", "c"]
        await gates.open("a")
        await gates.open("c")


async def test_order_by_keeps_order_inside_a_value_and_runs_values_in_parallel(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates, order_by="host")
    bench = Bench(kind, store)
    async with bench.serving():
        for topic, name in (("x", "x1"), ("x", "x2"), ("y", "y1"), ("x", "x3"), ("y", "y2")):
            bench.send(f"P/Events/{topic}", name.encode())
        await anyio.wait_all_tasks_blocked()
        assert gates.running == ["x1", "y1"]
        await gates.open("x1")
        assert sorted(gates.running) == ["x2", "y1"]
        await gates.open("x2")
        await gates.open("x3")
        assert gates.running == ["y1"]
        bench.send("P/Events/x", b"x4")  # nothing of that value waits any more
        await anyio.wait_all_tasks_blocked()
        assert gates.running == ["y1", "x4"]
        for name in ("y1", "y2", "x4"):
            await gates.open(name)
    assert gates.ended == ["x1", "x2", "x3", "y1", "y2", "x4"]


async def test_a_handler_that_never_waits_does_not_starve_the_others(store: Store) -> None:
    kind, turns, handled = fresh(), 0, 0

    @kind.topic("Events")
    class Busy(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            nonlocal handled
            handled += 1
            time.sleep(0.002)  # noqa: ASYNC251  that is the point

    async def other() -> None:
        nonlocal turns
        while handled < 20:
            turns += 1
            await anyio.lowlevel.checkpoint()

    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(*(bench.message("P/Events") for _ in range(20)))
        with anyio.fail_after(5):
            await other()
    assert turns >= 4, "one every 5 ms"


# --- threads ----------------------------------------------------------------------------------------------------------


@on_asyncio
async def test_a_plain_function_runs_in_a_thread_and_its_result_is_the_answer(store: Store) -> None:
    kind, threads = fresh(), set[int]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        def handle(self, message: Message[JSON]) -> object:
            threads.add(threading.get_ident())
            if message.payload:
                raise Rejected("empty, please")
            return 42

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["result"] == 42
        bench.send("P/Commands/scan", {"a": 1})
        assert (await bench.answer(1))["error"] == "empty, please"
    assert threading.get_ident() not in threads


@on_asyncio
async def test_the_slot_of_a_thread_stays_taken_after_its_timeout(store: Store) -> None:
    kind, running, started, go_on = fresh(), list[str](), threading.Event(), threading.Event()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.01

        def handle(self, message: Message[JSON]) -> None:
            running.append(str(message.payload["name"]))
            started.set()
            assert go_on.wait(5)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"name": "first"})
        bench.send("P/Commands/scan", {"name": "second"})
        assert (await bench.answer())["error"] == "timed out after 0.01 s"
        assert await anyio.to_thread.run_sync(started.wait, 5)
        with anyio.move_on_after(0.05):
            await bench.answer(1)
            pytest.fail("the second one had a slot")
        assert running == ["first"]
        go_on.set()
        await bench.answer(1)
    assert running == ["first", "second"]


@on_asyncio
async def test_a_timeout_before_the_thread_has_begun_does_not_lose_the_slot(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, seen, real = fresh(), list[object](), anyio.to_thread.run_sync

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.001

        def handle(self, message: Message[JSON]) -> None:
            seen.append(message.payload["n"])

    async def late(*args: Any, **options: Any) -> Any:
        await anyio.sleep(0.01)  # as where the machine is busy
        return await real(*args, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", late)
    bench = Bench(kind, store)
    async with bench.serving():
        for n in range(2):
            bench.send("P/Commands/scan", {"n": n})
        assert (await bench.answer(1))["error"] == "timed out after 0.001 s"
    assert seen == [0, 1]


@on_asyncio
async def test_a_thread_that_ends_in_time_counts_as_handled(store: Store) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 5

        def handle(self, message: Message[JSON]) -> str:
            return "quick"

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["result"] == "quick"


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", ["a1", 7, 7.5, True, False, [1, "x"], {"a": {"b": None}}, 2**60, "", 0])
async def test_a_correlation_id_of_any_kind_comes_back_as_it_came(store: Store, correlation: object) -> None:
    seen = list[str | None]()

    def result(message: Message[JSON]) -> object:
        seen.append(message.correlation_id)
        return message.payload

    bench = Bench(commanding(result), store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": correlation, "depth": 1})
        answer = await bench.answer()
    assert answer == {"correlationId": correlation, "ok": True, "result": {"depth": 1}}
    assert seen == [correlation if isinstance(correlation, str) else json.dumps(correlation, separators=(",", ":"))]


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"correlationId": null}'])
async def test_without_a_correlation_id_the_answer_has_null(store: Store, payload: bytes) -> None:
    bench = Bench(commanding(lambda message: message.correlation_id), store)
    async with bench.serving():
        bench.send("P/Commands/scan", payload)
        assert await bench.answer() == {"correlationId": None, "ok": True, "result": None}


async def test_mqtt_5s_correlation_data_serve_as_well_and_come_back(store: Store) -> None:
    bench = Bench(commanding(lambda message: message.correlation_id), store)
    async with bench.serving():
        bench.send("P/Commands/scan", correlation_data=b"a1")
        bench.send("P/Commands/scan", {"correlationId": "b2"}, correlation_data=b"\xff")
        first, second = await bench.answer(), await bench.answer(1)
    assert (first["correlationId"], first["result"]) == ("a1", "a1")
    assert (second["correlationId"], second["result"]) == ("b2", "b2")
    assert [each.correlation_data for each in bench.answers] == [b"a1", b"\xff"]


@pytest.mark.parametrize(
    ("wanted", "topic"),
    [
        (None, "P/Responses/scan"),
        ("P/Responses/scan/caller", "P/Responses/scan/caller"),
        ("P/Responses/scan", "P/Responses/scan"),
        ("P/Responses/other", "P/Responses/scan"),
        ("P/Responses/scan/a/b", "P/Responses/scan"),
        ("P/Responses/scan/+", "P/Responses/scan"),
        ("P/Responses/scan/#", "P/Responses/scan"),
        ("Other/Responses/scan", "P/Responses/scan"),
        ("KeeperLogger", "P/Responses/scan"),
        ("", "P/Responses/scan"),
    ],
)
async def test_a_caller_chooses_the_response_topic_among_our_own_responses_only(
    store: Store, wanted: str | None, topic: str
) -> None:
    kind = commanding(lambda message: None)

    @kind.command("scan/{host}")
    class ScanHost(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None: ...

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", response_topic=wanted)
        await bench.answer()
    assert bench.answers[0].topic == topic


async def test_the_levels_of_a_command_are_those_of_its_answer(store: Store) -> None:
    kind = fresh()

    @kind.command("scan/{host}")
    class ScanHost(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> str:
            return message.params["host"]

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan/")  # an empty level: nowhere to answer, and no harm done
        bench.send("P/Commands/scan/web1")
        assert (await bench.answer())["result"] == "web1"
    assert [each.topic for each in bench.answers] == ["P/Responses/scan/web1"]
    assert bench.dispatcher.counters.handled == 2


async def test_a_rejected_command_is_answered_with_the_reason_and_nothing_is_buried(store: Store) -> None:
    bench = Bench(commanding(raising(Rejected("not in this folder"))), store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "a"})
        assert await bench.answer() == {"correlationId": "a", "ok": False, "error": "not in this folder"}
    assert (bench.reasons(), store.unfinished_count(), bench.dispatcher.counters.rejected) == ([], 0, 1)


async def test_a_reason_is_answered_and_stored_without_secrets(store: Store) -> None:
    bench = Bench(commanding(raising(Rejected("401 for u:hunter2@host"))), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "401 for u:***@host"
    assert b"hunter2" not in store.kept()[0][1].payload


async def test_a_reason_that_is_no_unicode_is_told_as_far_as_it_goes(store: Store) -> None:
    bench = Bench(commanding(raising(Rejected("no file caf\udce9"))), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "no file caf?"


async def test_a_rejected_message_of_a_topic_is_acknowledged_and_counted(store: Store) -> None:
    kind = fresh(journal=False)

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            raise Rejected("not mine")

    bench = Bench(kind, store)
    async with bench.serving():
        mid = bench.send("P/Events")
        await bench.until(lambda: bench.acknowledged == [mid])
    assert (bench.answers, bench.reasons(), bench.dispatcher.counters.rejected) == ([], [], 1)


async def test_an_internal_error_is_told_without_details_and_logged_and_buried_with_them(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(commanding(raising(ValueError("password is hunter2"))), store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "a"})
        assert await bench.answer() == {"correlationId": "a", "ok": False, "error": "internal error"}
    [record] = [one for one in caplog.records if one.message == "handler.failed"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "password is hunter2"
    [letter] = store.dead_letters()
    assert letter.reason == "failed"
    assert "in fail" in letter.details
    assert "ValueError: password is ***" in letter.details, "secrets are never stored"
    assert (store.unfinished_count(), bench.dispatcher.counters.failed) == (0, 1)


async def test_a_result_that_json_cannot_carry_is_an_internal_error(store: Store) -> None:
    bench = Bench(commanding(lambda message: object()), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        assert (await bench.answer())["error"] == "internal error"
    assert (bench.reasons(), bench.dispatcher.counters.handled) == (["failed"], 0)


async def test_a_payload_that_does_not_fit_is_answered_with_what_is_wrong_and_buried(store: Store) -> None:
    @dataclass
    class Scan:
        depth: int

    kind, called = fresh(), list[int]()

    @kind.command("scan")
    class ScanHandler(Handler[Plugin]):
        async def handle(self, message: Message[Scan]) -> None:
            called.append(message.payload.depth)

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": 7, "depth": "deep"})
        answer = await bench.answer()
        bench.send("P/Commands/scan", b"{")
        assert "error" in await bench.answer(1)
        bench.send("P/Commands/scan", {"depth": 3})
        await bench.answer(2)
    assert (answer["correlationId"], answer["ok"]) == (7, False)
    assert "depth" in str(answer["error"])
    assert (called, bench.reasons()) == ([3], ["payload mismatch"] * 2)
    assert bench.dispatcher.counters.mismatched == 2


async def test_a_payload_type_whose_own_code_fails_is_an_internal_error(store: Store) -> None:
    @dataclass
    class Scan:
        depth: int

        def __post_init__(self) -> None:
            raise RuntimeError(f"no such depth: {self.depth}")

    kind = fresh()

    @kind.command("scan")
    class ScanHandler(Handler[Plugin]):
        async def handle(self, message: Message[Scan]) -> None: ...

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": 7, "depth": 1})
        assert await bench.answer() == {"correlationId": 7, "ok": False, "error": "internal error"}
    assert bench.reasons() == ["failed"]


async def test_a_call_that_takes_too_long_is_answered_and_buried_and_the_next_one_runs(store: Store) -> None:
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        timeout = 0.01

        async def handle(self, message: Message[JSON]) -> str:
            if message.payload:
                await anyio.sleep_forever()
            return "quick"

    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", {"correlationId": "a", "slow": True})
        bench.send("P/Commands/scan")
        assert await bench.answer() == {"correlationId": "a", "ok": False, "error": "timed out after 0.01 s"}
        assert (await bench.answer(1))["result"] == "quick"
    assert (bench.reasons(), bench.dispatcher.counters.timed_out) == (["timeout"], 1)
    assert bench.dispatcher.counters.report()["timedOut"] == 1


# --- the journal ------------------------------------------------------------------------------------------------------


async def test_a_message_is_acknowledged_when_it_is_in_the_journal_and_not_before(store: Store) -> None:
    bench = Bench(commanding(lambda message: None), store)
    in_journal = list[int]()

    def acknowledge(mids: Sequence[int]) -> None:
        in_journal.append(store.unfinished_count())
        bench.acknowledge(mids)

    batch = [bench.message("P/Commands/scan") for _ in range(3)]
    bench.dispatcher.receive(batch, acknowledge)
    assert in_journal == [3], "one commit, one acknowledgement"
    assert bench.acknowledged == [each.mid for each in batch]
    async with bench.serving():
        await bench.answer(2)
    assert store.unfinished_count() == 0


async def test_an_answer_is_kept_in_the_commit_that_ends_its_message(store: Store) -> None:
    bench = Bench(commanding(lambda message: "done"), store)
    async with bench.serving():
        bench.send("P/Commands/scan")
        await bench.answer()
    [(_, kept)] = store.kept()
    assert kept == bench.answers[0]


async def test_at_qos_0_nothing_is_journalled_or_acknowledged(store: Store) -> None:
    bench = Bench(commanding(lambda message: None), store)
    bench.send("P/Commands/scan", qos=0)
    assert (store.unfinished_count(), bench.acknowledged) == (0, [])
    async with bench.serving():
        await bench.answer()


async def test_what_was_not_finished_is_handled_by_the_next_run_in_order(tmp_path: Path) -> None:
    seen = list[tuple[object, int]]()
    kind = commanding(lambda message: seen.append((message.payload["n"], message.delivery)))
    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.receive(*(bench.message("P/Commands/scan", {"n": n}) for n in range(3)))
    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        assert bench.dispatcher.replay() == 3
        async with bench.serving():
            bench.send("P/Commands/scan", {"n": 3})
            await bench.answer(3)
    assert seen == [(0, 2), (1, 2), (2, 2), (3, 1)]


async def test_a_message_whose_handler_is_gone_becomes_a_dead_letter(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        Bench(commanding(lambda message: None), store).send("P/Commands/scan", {"n": 1})
    with open_store(tmp_path) as store:
        bench = Bench(fresh(), store)
        bench.dispatcher.replay()
        [letter] = store.dead_letters()
        assert (letter.reason, letter.received.topic) == ("no handler", "P/Commands/scan")
        assert json.loads(letter.received.payload) == {"n": 1}
        assert store.unfinished_count() == 0


async def test_without_a_journal_there_is_nothing_to_replay(store: Store) -> None:
    assert Bench(fresh(journal=False), store).dispatcher.replay() == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"dispatch._lane.LIMIT": 5, "dispatch._lane.LOW": 3, "dispatch._dispatcher.PART": 3},
        {"dispatch._lane.LIMIT_BYTES": 120, "dispatch._lane.LOW_BYTES": 60, "store._journal.PART_BYTES": 400},
    ],
)
@pytest.mark.parametrize("before_serving", [7, 40])
async def test_what_does_not_fit_in_memory_stays_in_the_journal_and_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch, before_serving: int, limits: dict[str, int]
) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(f"kepm_plugin.{name}", limit)
    kind, seen = fresh(), list[object]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.append(message.payload["n"])
            await anyio.lowlevel.checkpoint()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            await anyio.lowlevel.checkpoint()

    bench = Bench(kind, store)
    numbers = iter(range(before_serving + 20))
    for _ in range(before_serving):
        bench.receive(bench.message("P/Commands/scan", {"n": next(numbers)}), *(bench.message("P/Events"),) * 2)
    assert len(bench.acknowledged) == 3 * before_serving
    async with bench.serving():
        for _ in range(20):  # more comes while the lanes catch up
            bench.send("P/Commands/scan", {"n": next(numbers)})
            await anyio.lowlevel.checkpoint()
        await bench.answer(before_serving + 19)
        await anyio.wait_all_tasks_blocked()
    assert seen == list(range(before_serving + 20))
    assert store.unfinished_count() == 0


async def test_what_cannot_be_journalled_is_not_acknowledged_until_it_can(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    kind, seen = fresh(), list[object]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.append(message.payload["n"])

    bench = Bench(kind, store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "journal")
            mids = [bench.send("P/Commands/scan", {"n": n}) for n in range(3)]
            await anyio.sleep(0.01)
            assert (bench.acknowledged, seen) == ([], [])
            assert bench.troubles == [("journal", "disk full")], "it is said once"
        mids.append(bench.send("P/Commands/scan", {"n": 3}))  # behind the others
        await bench.answer(3)
    assert seen == [0, 1, 2, 3]
    assert bench.acknowledged == mids
    assert bench.troubles == [("journal", "disk full"), ("journal", None)]
    assert bench.dispatcher.counters.refused == 0


async def test_held_messages_are_acknowledged_to_the_session_that_brought_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    bench = Bench(commanding(lambda message: None), store)
    by_session: dict[str, list[int]] = {"first": [], "second": []}
    with monkeypatch.context() as patch:
        failing(store, patch, "journal")
        for name, mid in (("first", 1), ("first", 2), ("second", 1)):
            message = Received("P/Commands/scan", b"", 1, mid=mid)
            bench.dispatcher.receive([message], by_session[name].extend)
    async with bench.serving():
        await bench.answer(2)
    assert by_session == {"first": [1, 2], "second": [1]}


async def test_a_full_journal_takes_more_when_handlers_have_caught_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    with memory_store(limits=Limits(journal_bytes=1)) as store:
        bench = Bench(commanding(lambda message: None), store)
        first, second = bench.send("P/Commands/scan"), bench.send("P/Commands/scan")
        assert bench.acknowledged == [first]
        assert [source for source, _ in bench.troubles] == ["journal"]
        assert "is full" in str(bench.troubles[0][1])
        async with bench.serving():
            await bench.answer(1)
        assert bench.acknowledged == [first, second]


@pytest.mark.parametrize(("name", "limit"), [("HELD", 2), ("HELD_BYTES", 50)])
async def test_even_what_waits_for_the_journal_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(f"kepm_plugin.dispatch._intake.{name}", limit)
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    bench = Bench(commanding(lambda message: message.payload["n"]), store)
    with monkeypatch.context() as patch:
        failing(store, patch, "journal")
        mids = [bench.send("P/Commands/scan", {"n": n}) for n in range(5)]
    assert bench.dispatcher.counters.refused == 3
    async with bench.serving():
        assert [(await bench.answer(n))["result"] for n in range(2)] == [0, 1]
    assert bench.acknowledged == mids[:2]


@pytest.mark.parametrize("method", ["finish", "bury"])
async def test_an_end_that_cannot_be_written_is_answered_and_left_for_the_next_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    bench = Bench(commanding(raising(ValueError()) if method == "bury" else lambda message: "done"), store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, method)
            bench.send("P/Commands/scan")
            answer = await bench.answer()
        assert answer["ok"] == (method == "finish")
        assert (store.unfinished_count(), store.kept()) == (1, [])
        assert bench.troubles == [("store", "disk full")]
        bench.send("P/Commands/scan")
        await bench.answer(1)
    assert bench.troubles[1:] == [("store", None)]


@pytest.mark.parametrize("method", ["finish", "bury"])
async def test_a_topic_whose_end_cannot_be_written_is_left_too(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    kind = fresh()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            if method == "bury":
                raise ValueError

    bench = Bench(kind, store)
    failing(store, monkeypatch, method)
    if method == "finish":
        failing(store, monkeypatch, "finish_all")
    async with bench.serving():
        bench.send("P/Events")
        await bench.until(lambda: bench.troubles)
    assert (bench.answers, store.unfinished_count()) == ([], 1)


async def test_what_ends_in_one_turn_of_the_loop_is_written_in_one_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._workers.BURST", 3600)
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    seen = list[tuple[str, str]]()
    noting(kind, "Quick", "quick", seen)
    commits = list[list[int]]()
    finish_all = store.finish_all

    def noted(ids: Sequence[int]) -> None:
        commits.append(list(ids))
        finish_all(ids)
        bench.changed()

    monkeypatch.setattr(store, "finish_all", noted)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Events/x", b"waits")
        await anyio.wait_all_tasks_blocked()
        bench.receive(*(bench.message("P/Quick") for _ in range(3)))
        await bench.until(lambda: commits)  # and not until the handler has ended that waits
        assert (len(seen), gates.running) == (3, ["waits"])
        assert (commits, store.unfinished_count()) == ([[2, 3, 4]], 1)
        await gates.open("waits")
    assert commits == [[2, 3, 4], [1]]


async def test_what_ends_as_the_plugin_is_closed_is_written(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    async with anyio.create_task_group() as tasks:
        await tasks.start(bench.dispatcher.serve)
        bench.send("P/Events/x", b"a")
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.close()
        await gates.open("a")
    assert store.unfinished_count() == 0


async def test_ends_that_could_not_be_written_together_are_written_later_each_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    kind, seen = fresh(), list[tuple[str, str]]()
    noting(kind, "Events", "event", seen)
    failing(store, monkeypatch, "finish_all")
    bench = Bench(kind, store)
    async with bench.serving():
        bench.receive(*(bench.message("P/Events") for _ in range(3)))
        await bench.until(lambda: len(bench.troubles) == 2)
        assert store.unfinished_count() == 0
    assert bench.troubles == [("store", "disk full"), ("store", None)]
    assert len(seen) == 3


async def test_beyond_so_many_ends_are_written_before_the_loop_has_a_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._workers.BURST", 3600)
    monkeypatch.setattr("kepm_plugin.dispatch._ends.TOGETHER", 2)
    kind, left = fresh(), list[int]()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            left.append(store.unfinished_count())

    bench = Bench(kind, store)
    bench.receive(*(bench.message("P/Events") for _ in range(5)))
    async with bench.serving():
        await bench.until_idle()
    assert left == [5, 5, 3, 3, 1]
    assert store.unfinished_count() == 0


@pytest.mark.parametrize("result", ["done", ValueError()])
@pytest.mark.parametrize("how", ["by itself", "behind another one", "at the end", "when cut off"])
async def test_an_end_that_could_not_be_written_is_written_later_and_the_message_not_handled_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, result: object, how: str
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001 if how == "by itself" else 3600)
    bench = Bench(commanding(raising(result) if isinstance(result, Exception) else lambda message: result), store)
    async with anyio.create_task_group() as tasks:
        await tasks.start(bench.dispatcher.serve)
        with monkeypatch.context() as patch:
            failing(store, patch, "finish")
            failing(store, patch, "bury")
            bench.send("P/Commands/scan")
            await bench.answer()
            bench.send("P/Commands/scan", qos=0)
            await bench.answer(1)
            assert bench.troubles == [("store", "disk full")], "at QoS 0 nothing was written"
        if how == "by itself":
            await bench.until(lambda: len(bench.troubles) == 2)
        elif how == "behind another one":
            bench.send("P/Commands/scan")
            await bench.answer(2)
        if how == "when cut off":
            tasks.cancel_scope.cancel()
        bench.dispatcher.close()
    assert bench.troubles == [("store", "disk full"), ("store", None)]
    assert store.unfinished_count() == 0
    assert len(bench.answers) == (3 if how == "behind another one" else 2), "none is sent twice"
    assert set(bench.reasons()) == ({"failed"} if isinstance(result, Exception) else set())


async def test_an_answer_that_the_broker_has_not_got_when_its_end_is_written_is_kept_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the message would be done and the answer lost, were the process killed before the link is back."""
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    bench = Bench(commanding(lambda message: "done"), store)
    bench.link_up = False
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "finish")
            bench.send("P/Commands/scan")
            await bench.answer()
        await bench.until(lambda: store.unfinished_count() == 0)
    ((_, kept),) = store.kept()
    assert [each.payload for each in bench.answers] == [kept.payload] * 2


async def test_without_a_journal_what_could_not_be_buried_is_acknowledged_when_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    kind = fresh(journal=False)

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            raise ValueError

    bench = Bench(kind, store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "bury")
            mid = bench.send("P/Events")
            await bench.until(lambda: bench.troubles)
            assert bench.acknowledged == []
        await bench.until(lambda: bench.acknowledged == [mid])
    assert bench.reasons() == ["failed"]


@pytest.mark.parametrize(("name", "limit"), [("UNWRITTEN", 2), ("UNWRITTEN_BYTES", 2_000)])
async def test_what_waits_to_be_written_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(f"kepm_plugin.dispatch._ends.{name}", limit)
    kind = fresh()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[int]) -> None: ...

    bench = Bench(kind, store)
    async with bench.serving():
        with monkeypatch.context() as patch:
            failing(store, patch, "bury")
            bench.receive(*(bench.message("P/Events", b"x" * 700) for _ in range(4)))
            await anyio.wait_all_tasks_blocked()
            assert bench.dispatcher.counters.mismatched == 4
    assert store.unfinished_count() == 2


@pytest.mark.parametrize("order_by", [None, "host"])
async def test_without_a_journal_a_kept_session_brings_again_what_waits_and_nothing_is_handled_out_of_order(
    order_by: str | None,
) -> None:
    kind, gates = fresh(journal=False, clean_session=False), Gates()
    gated(kind, gates, order_by=order_by)
    async with hosted(kind) as host:
        for name in "abc":
            await host.publish("Events/x", name)
        await host.publish("Events/x", "at QoS 0", qos=0)
        if order_by:
            await host.publish("Events/y", "beside")
        await anyio.wait_all_tasks_blocked()
        await host.lose_link()
        await anyio.wait_all_tasks_blocked()
        for name in ("a", "at QoS 0", "b", "c", "beside"):
            await gates.open(name)
    assert [name for name in gates.ended if name != "beside"] == ["a", "at QoS 0", "a", "b", "c"]


async def test_a_new_session_of_the_broker_leaves_alone_what_waits(store: Store) -> None:
    kind, seen = fresh(journal=False), list[tuple[str, str]]()
    noting(kind, "Events/{host}", "event", seen)
    bench = Bench(kind, store)
    bench.send("P/Events/a")
    bench.dispatcher.new_session(False)
    async with bench.serving():
        await bench.until(lambda: bench.acknowledged)
    assert seen == [("event", "P/Events/a")]


async def test_order_is_kept_where_waiting_messages_of_a_value_are_sent_again(store: Store) -> None:
    kind, gates = fresh(journal=False), Gates()
    gated(kind, gates, order_by="host")
    bench = Bench(kind, store)
    for name in ("a1", "a2"):
        bench.send("P/Events/a", name.encode())
    bench.send("P/Events/b", b"b1", qos=0)
    bench.send("P/Events/b", b"b2")
    bench.dispatcher.new_session(True)
    for name in ("a1", "a2", "b2"):
        bench.send(f"P/Events/{name[0]}", name.encode())
    async with bench.serving():
        for name in ("b1", "a1", "a2", "b2"):
            await gates.open(name)
        await anyio.wait_all_tasks_blocked()
    assert sorted(gates.ended) == ["a1", "a2", "b1", "b2"]
    assert gates.ended.index("a1") < gates.ended.index("a2")


async def test_what_waits_for_the_journal_is_forgotten_where_it_is_sent_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(commanding(lambda message: None), store)
    with monkeypatch.context() as patch:
        failing(store, patch, "journal")
        bench.send("P/Commands/scan")
    bench.dispatcher.new_session(True)
    bench.send("P/Commands/scan")
    assert store.unfinished_count() == 1


async def test_a_journal_that_cannot_be_read_back_is_read_again_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 1)
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.001)
    bench = Bench(commanding(lambda message: None), store)
    bench.send("P/Commands/scan")
    bench.send("P/Commands/scan")
    with monkeypatch.context() as patch:
        failing(store, patch, "read_from")
        async with bench.serving():
            await bench.until(lambda: ("store", "disk full") in bench.troubles)
            patch.undo()
            await bench.answer(1)
    assert bench.troubles[-1] == ("store", None)


@pytest.mark.parametrize("depth", [900, 950, 970, 985, 995, 1100])
@pytest.mark.parametrize("fails", [False, True])
async def test_an_identity_that_is_nested_too_deeply_ends_nothing(store: Store, depth: int, *, fails: bool) -> None:
    kind = commanding(raising(ValueError("a bug")) if fails else lambda message: "done")
    bench = Bench(kind, store)
    async with bench.serving():
        bench.send("P/Commands/scan", b'{"correlationId": ' + b"[" * depth + b"]" * depth + b"}")
        bench.send("P/Commands/scan", {"correlationId": "7"})
        assert (await bench.answer(1))["correlationId"] == "7"
    assert store.unfinished_count() == 0


@pytest.mark.parametrize("depth", [900, 950, 970, 985, 995, 1100])
async def test_nor_does_one_of_a_repetition(store: Store, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    bench = Bench(commanding(lambda message: "done", dedupe="scan"), store)
    async with bench.serving():
        bench.send("P/Commands/scan", b'{"scan": 1}')
        await bench.answer()
        bench.send("P/Commands/scan", b'{"scan": 1, "correlationId": ' + deep + b"}")
        bench.send("P/Commands/scan", {"scan": 2, "correlationId": "7"})
        assert (await bench.answer(2))["correlationId"] == "7"
    assert store.unfinished_count() == 0


async def test_an_identity_that_is_no_text_comes_back_as_it_came(store: Store) -> None:
    bench = Bench(commanding(lambda message: "done"), store)
    async with bench.serving():
        for number in range(2):  # the second one repeats the first, and is answered from memory
            bench.send("P/Commands/scan", {"correlationId": {"a": [1, None, "x"]}})
            assert (await bench.answer(number))["correlationId"] == {"a": [1, None, "x"]}


async def test_what_is_journalled_is_not_kept_waiting_by_a_flood_at_qos_0(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 10)
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LOW", 6)
    kind, seen = fresh(), list[tuple[str, str]]()

    @kind.topic("Events/{qos}")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            seen.append((message.params["qos"], message.topic))
            for _ in range(5):  # more come than are handled, and at once
                bench.send("P/Events/0", qos=0)
            await anyio.lowlevel.checkpoint()

    bench = Bench(kind, store)
    bench.receive(*(bench.message("P/Events/1") for _ in range(30)))
    async with bench.serving():
        with anyio.fail_after(5):
            while store.unfinished_count():
                await anyio.lowlevel.checkpoint()
        bench.dispatcher.close()
    assert [qos for qos, _ in seen].count("1") == 30


# --- without a journal, and at QoS 0 ----------------------------------------------------------------------------------


async def test_without_a_journal_the_acknowledgement_comes_after_the_handler(store: Store) -> None:
    kind, gates = fresh(journal=False), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    async with bench.serving():
        first, second = bench.send("P/Events/x", b"a"), bench.send("P/Events/x", b"b")
        await anyio.wait_all_tasks_blocked()
        assert (gates.running, bench.acknowledged) == (["a"], [])
        await gates.open("a")
        assert bench.acknowledged == [first]
        await gates.open("b")
        assert bench.acknowledged == [first, second]
    assert store.unfinished_count() == 0


@pytest.mark.parametrize(("name", "limit"), [("LIMIT", 2), ("LIMIT_BYTES", 16)])
async def test_without_a_journal_a_full_lane_stops_the_reading_and_what_was_read_before_is_handled(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(f"kepm_plugin.dispatch._lane.{name}", limit)
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LOW", 1)
    kind, seen = fresh(journal=False), list[tuple[str, str]]()
    noting(kind, "Events", "event", seen)
    bench = Bench(kind, store)
    mids = [bench.send("P/Events", b"") for _ in range(5)]
    assert bench.paused == [True]
    [(source, reason)] = bench.troubles
    assert "overloaded: " in str(reason)
    assert bench.dispatcher.counters.refused == 1, "memory is bounded all the same, should the reading go on"
    bench.dispatcher.new_session(False)
    assert bench.dispatcher.overloaded, "a new session is not to be read either"
    async with bench.serving():
        await bench.until(lambda: len(bench.acknowledged) == 4)
        await anyio.wait_all_tasks_blocked()
    assert bench.acknowledged == mids[:4]
    assert bench.troubles[1:] == [(source, None)]
    assert bench.paused == [True, False]
    assert not bench.dispatcher.overloaded


async def test_reading_goes_on_when_no_lane_is_behind_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 2)
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LOW", 1)
    kind, gates = fresh(journal=False), Gates()
    gated(kind, gates, order_by="host", concurrency=1)
    noting(kind, "Other", "other", [])
    bench = Bench(kind, store)
    for topic in ("Events/x", "Other"):
        bench.receive(*(bench.message(f"P/{topic}", b"a") for _ in range(2)))
    assert bench.paused == [True]
    async with bench.serving():
        await anyio.wait_all_tasks_blocked()
        assert bench.paused == [True], "one handler is still behind"
        bench.dispatcher.new_session(True)
        await gates.open("a")
    assert bench.paused == [True, False], "what the broker sends again is not waited for"


# --- stopping, at QoS 0 -----------------------------------------------------------------------------------------------


async def test_what_waits_at_qos_0_when_the_plugin_stops_is_counted_as_dropped(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    async with bench.serving():
        for payload in (b"running", b"a", b"b"):
            bench.send("P/Events/x", payload, qos=0)
        await anyio.wait_all_tasks_blocked()
        bench.dispatcher.close()
        await gates.open("running")
    assert (bench.dispatcher.counters.handled, bench.dispatcher.counters.dropped) == (1, 2)


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_close_lets_running_calls_finish_and_leaves_the_rest(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    ended = anyio.Event()

    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await bench.dispatcher.serve(task_status=task_status)
        ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(serve)
            taken = [bench.send("P/Events/x", b"running"), bench.send("P/Events/x", b"waiting")]
            await anyio.wait_all_tasks_blocked()
            bench.dispatcher.close()
            taken.append(bench.send("P/Events/x", b"late"))
            bench.send("P/Events/x", b"at QoS 0", qos=0)
            taken.append(bench.send("X/Responses/y", b"what the running call waits for"))
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
            assert bench.acknowledged == taken
            await gates.open("running")
            await ended.wait()
    assert gates.ended == ["running"]
    assert bench.direct == [b"what the running call waits for"]
    assert [each.received.payload for each in store.read_from(0, 9)] == [b"waiting", b"late"]
    assert bench.dispatcher.counters.dropped == 1


async def test_without_a_journal_what_comes_while_closing_stays_with_the_broker(store: Store) -> None:
    kind, seen = fresh(journal=False), list[tuple[str, str]]()
    noting(kind, "Events", "event", seen)
    bench = Bench(kind, store)
    async with bench.serving():
        bench.dispatcher.close()
        bench.send("P/Events")
    assert (bench.acknowledged, seen, bench.dispatcher.counters.refused) == ([], [], 1)


async def test_what_comes_while_the_plugin_drains_is_handled_by_the_next_run(tmp_path: Path) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    with anyio.fail_after(5):
        async with hosted(kind, data_dir=tmp_path / "P") as host, anyio.create_task_group() as tasks:
            await host.publish("Events/x", "running")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(host.stop)
            await anyio.wait_all_tasks_blocked()
            await host.publish("Events/x", "late")
            await anyio.wait_all_tasks_blocked()
            await gates.open("running")
        async with hosted(kind, data_dir=tmp_path / "P"):
            await gates.open("late")
    assert gates.ended == ["running", "late"]


async def test_a_cancelled_call_leaves_its_message_in_the_journal(store: Store) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    bench = Bench(kind, store)
    async with anyio.create_task_group() as tasks:
        await tasks.start(bench.dispatcher.serve)
        bench.send("P/Events/x", b"running")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert (gates.ended, store.unfinished_count(), bench.reasons()) == ([], 1, [])


@on_asyncio
async def test_a_thread_outlives_a_cancelled_call_without_harm(store: Store) -> None:
    kind, go_on, ended = fresh(), threading.Event(), threading.Event()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        timeout = 60

        def handle(self, message: Message[bytes]) -> None:
            assert go_on.wait(5)
            ended.set()

    bench = Bench(kind, store)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await tasks.start(bench.dispatcher.serve)
            bench.send("P/Events")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    go_on.set()
    assert ended.wait(5)
    assert store.unfinished_count() == 1


async def test_with_a_journal_reading_never_stops_however_much_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 2)
    bench = Bench(commanding(lambda _: None), store)
    for _ in range(5):
        bench.send("P/Commands/scan")
    bench.dispatcher.new_session(True)
    assert (bench.paused, bench.troubles, len(bench.acknowledged)) == ([], [], 5)
    async with bench.serving():
        await bench.answer(4)
