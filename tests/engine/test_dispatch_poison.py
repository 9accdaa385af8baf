"""Messages that end the process: the next runs handle them again, but not for ever, and nothing else is lost."""

import shutil
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.dispatch._delivery import DELIVERIES
from kepm_plugin.store import open_store
from kepm_plugin.testing import hosted
from tests.engine.bench import JSON, Bench, Gates, commanding, failing, fresh, gated


def left_over(folder: Path, *begun: int) -> None:
    """Leave one command per number in a journal, whose deliveries so far ended with the process."""
    with open_store(folder) as store:
        bench = Bench(commanding(lambda message: None), store)
        for n, deliveries in enumerate(begun):
            bench.send("P/Commands/scan", {"correlationId": str(n)})
            [*_, row] = store.read_from(0, 9)
            store.begin(row.id, deliveries)


@pytest.mark.parametrize("order", [("poison", "beside"), ("beside", "poison")])
async def test_it_is_given_up_after_five_deliveries_and_what_ran_beside_it_or_waited_is_handled(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    run, seen, handled = 0, list[tuple[object, int]](), list[object]()
    crashed = anyio.Event()

    def registered() -> type[Plugin]:
        kind = fresh()

        class Poison(Handler[Plugin]):
            async def handle(self, message: Message[JSON]) -> str:
                if message.payload["n"] == "poison":
                    seen.append(("poison", message.delivery))
                    for _ in range(5):
                        await anyio.lowlevel.checkpoint()
                    # What a process leaves that ends here.
                    (tmp_path / str(run + 1)).mkdir()
                    for name in ("plugin.db", "plugin.db-wal"):
                        shutil.copy(tmp_path / str(run) / name, tmp_path / str(run + 1) / name)
                    crashed.set()
                    await anyio.sleep_forever()
                handled.append(message.payload["n"])
                return "fine"

        class Beside(Handler[Plugin]):
            async def handle(self, message: Message[JSON]) -> str:
                seen.append(("beside", message.delivery))
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                if not crashed.is_set():
                    handled.append("beside")
                return "fine"

        for name in order:
            if name == "poison":
                kind.command(name)(Poison)
            else:
                kind.command(name)(Beside)
        return kind

    for run in range(DELIVERIES):
        crashed = anyio.Event()
        with open_store(tmp_path / str(run)) as store:
            bench = Bench(registered(), store)
            bench.dispatcher.replay()
            if run == 0:
                for n in ("poison", "behind"):
                    bench.send("P/Commands/poison", {"correlationId": n, "n": n})
                bench.send("P/Commands/beside", {"correlationId": "beside"})
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(bench.dispatcher.serve)
                    await crashed.wait()
                    tasks.cancel_scope.cancel()
    assert [delivery for name, delivery in seen if name == "poison"] == [1, 2, 3, 4, 5]

    run, crashed = DELIVERIES, anyio.Event()
    with open_store(tmp_path / str(DELIVERIES)) as store:
        bench = Bench(registered(), store)
        bench.dispatcher.replay()
        assert (await bench.answer())["error"] == "given up after 5 deliveries"
        assert (await bench.answer())["correlationId"] == "poison"
        async with bench.serving():
            await bench.until(lambda: store.unfinished_count() == 0)
        [letter] = store.dead_letters()
        assert letter.reason == "crashed"
        assert "Poison" in letter.details
    assert sorted(map(str, handled)) == ["behind", "beside"]
    assert bench.dispatcher.counters.crashed == 1


async def test_what_an_earlier_run_left_is_done_before_the_next_message_begins(tmp_path: Path) -> None:
    """It has been counted: were it left behind together with one that ends the process, it would count once more."""
    kind, left = fresh(), list[int]()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            left.append(store.unfinished_count())

    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.receive(*(bench.message("P/Events") for _ in range(3)))
    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.dispatcher.replay()
        async with bench.serving():
            await bench.until_idle()
    assert left == [3, 2, 1]


async def test_its_caller_is_answered_once(tmp_path: Path) -> None:
    left_over(tmp_path / "P", DELIVERIES)
    async with hosted(commanding(lambda message: None), data_dir=tmp_path / "P") as host:
        await host.until_published("Responses/scan")
        await host.stop()
        [answer] = host.published("Responses/scan")
        assert answer == {"correlationId": "0", "ok": False, "error": "given up after 5 deliveries"}


async def test_a_delivery_that_an_orderly_stop_cuts_short_does_not_count(tmp_path: Path) -> None:
    kind, gates = fresh(), Gates()
    gated(kind, gates)
    for run in range(6):
        with open_store(tmp_path) as store:
            bench = Bench(kind, store)
            bench.dispatcher.replay()
            if run == 0:
                bench.send("P/Events/x", b"slow")
            async with anyio.create_task_group() as tasks:
                await tasks.start(bench.dispatcher.serve)
                await anyio.wait_all_tasks_blocked()
                assert gates.running == ["slow"]
                tasks.cancel_scope.cancel()
            gates.running.clear()
    with open_store(tmp_path) as store:
        assert [one.delivery for one in store.unfinished()] == [2]


async def test_it_is_logged_with_topic_and_handler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_over(tmp_path, DELIVERIES)
    with open_store(tmp_path) as store:
        Bench(commanding(lambda message: None), store).dispatcher.replay()
        assert store.unfinished_count() == 0
    [record] = [one for one in caplog.records if one.message == "message.given_up"]
    assert record.levelname == "ERROR"
    assert vars(record)["topic"] == "P/Commands/scan"
    assert vars(record)["handler"].endswith("Scan")


async def test_what_cannot_be_buried_is_neither_handled_nor_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 1)
    seen = list[str | None]()
    left_over(tmp_path, 1, 1, DELIVERIES)
    with open_store(tmp_path) as store:
        bench = Bench(commanding(lambda message: seen.append(message.correlation_id)), store)
        with monkeypatch.context() as patch:
            failing(store, patch, "bury")
            bench.dispatcher.replay()
        assert bench.troubles == [("store", "disk full")]
        async with bench.serving():
            await bench.answer(2)
    assert seen == ["0", "1"]


async def test_a_count_that_cannot_be_written_keeps_nothing_from_being_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_over(tmp_path, 2)
    with open_store(tmp_path) as store:
        failing(store, monkeypatch, "begin")
        bench = Bench(commanding(lambda message: "done"), store)
        bench.dispatcher.replay()
        async with bench.serving():
            assert (await bench.answer())["result"] == "done"
        assert bench.troubles == [("store", "disk full"), ("store", None)]


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_a_suspect_waits_for_another_one_but_not_for_ever(tmp_path: Path) -> None:
    left_over(tmp_path, 2, 2, 1)
    kind, gates = fresh(), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 3

        async def handle(self, message: Message[JSON]) -> None:
            await gates.pass_through(str(message.correlation_id))

    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.dispatcher.replay()
        async with bench.serving():
            await anyio.sleep(59)
            assert sorted(gates.running) == ["0", "2"]
            await anyio.sleep(2)
            assert sorted(gates.running) == ["0", "1", "2"]
            for n in "012":
                await gates.open(n)


async def test_a_suspect_that_waits_when_the_plugin_stops_is_left_for_the_next_run(tmp_path: Path) -> None:
    left_over(tmp_path, 2, 2)
    kind, gates = fresh(), Gates()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        concurrency = 2

        async def handle(self, message: Message[JSON]) -> None:
            await gates.pass_through(str(message.correlation_id))

    with open_store(tmp_path) as store:
        bench = Bench(kind, store)
        bench.dispatcher.replay()
        async with bench.serving():
            await anyio.wait_all_tasks_blocked()
            bench.dispatcher.close()
            await gates.open("0")
        assert gates.ended == ["0"]
        assert [one.delivery for one in store.unfinished()] == [3]
