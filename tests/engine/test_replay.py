"""Dead letters that a command puts back while the plugin runs, or before it does."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.errors import StoreError
from kepm_plugin.message import Received
from kepm_plugin.store import FILE, Letters, Store, open_letters, open_store
from kepm_plugin.testing import Hosted, hosted
from tests.engine.bench import AT, JSON, Bench, commanding, failing, fresh, raising


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    """A store on disk: there must be another connection to it."""
    with open_store(tmp_path) as opened:
        yield opened


@contextmanager
def letters_in(folder: Path) -> Generator[Letters]:
    """The letters as a command has them."""
    with open_letters(folder / FILE, writable=True, now=lambda: AT) as letters:
        assert letters is not None
        yield letters


def put_back(folder: Path) -> list[int]:
    """Do what `deadletters replay --all` does."""
    with letters_in(folder) as letters:
        return [entry.id for entry in letters.all() if letters.put_back(entry.id)]


def noting(seen: list[object], **options: Any) -> type[Plugin]:
    return commanding(lambda message: seen.append(message.payload["n"]), **options)


def bury(store: Store, *numbers: int, topic: str = "P/Commands/scan", qos: int = 1) -> None:
    for number in numbers:
        received = Received(topic, json.dumps({"n": number}).encode(), qos, received_at=1e9)
        store.bury(received, reason="failed", details="")


async def test_what_is_put_back_is_handled_in_order_and_answered(store: Store, tmp_path: Path) -> None:
    seen = list[object]()
    bench = Bench(noting(seen), store)
    bury(store, 1, 2)
    bury(store, 3, qos=0)
    async with bench.serving():
        assert bench.dispatcher.look_again() == 0
        assert put_back(tmp_path) == [1, 2, 3]
        assert bench.dispatcher.look_again() == 3
        await bench.answer(2)
        assert bench.dispatcher.look_again() == 0
        await anyio.wait_all_tasks_blocked()
    assert seen == [1, 2, 3]
    assert (store.unfinished_count(), store.dead_letters(), bench.acknowledged) == (0, [], [])


async def test_it_is_not_given_up_for_its_age_and_has_all_its_retries(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._later.FIRST", 0.001)
    bench = Bench(commanding(raising(ValueError("x")), retries=2), store)
    (row,) = store.journal([Received("P/Commands/scan", b"{}", 1, received_at=1e9)])
    store.postpone(row.id, 2, 1e9)
    store.bury(row.received, reason="failed", details="", id=row.id)
    async with bench.serving():
        put_back(tmp_path)
        bench.dispatcher.look_again()
        await bench.answer()
    counters = bench.dispatcher.counters
    assert (counters.failed, counters.retried, counters.too_old) == (1, 2, 0)
    assert [letter.deliveries for letter in store.dead_letters()] == [3]


async def test_a_letter_whose_handler_is_gone_is_one_again(store: Store, tmp_path: Path) -> None:
    bench = Bench(fresh(), store)
    bury(store, 1)
    put_back(tmp_path)
    assert bench.dispatcher.look_again() == 1
    assert bench.reasons() == ["no handler"]
    assert store.unfinished_count() == 0


@pytest.mark.parametrize("when", ["before", "between", "behind"])
async def test_with_a_full_lane_nothing_is_lost_or_handled_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What is put back has a number before, between or behind those that are in the journal alone."""
    for name, limit in {"dispatch._lane.LIMIT": 4, "dispatch._lane.LOW": 2, "dispatch._dispatcher.PART": 3}.items():
        monkeypatch.setattr(f"kepm_plugin.{name}", limit)
    kind, seen = fresh(), list[object]()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.append(message.payload["n"])
            await anyio.lowlevel.checkpoint()

    bench = Bench(kind, store)
    bury(store, 100, 101)
    for n in range(20):
        if n == {"before": 2, "between": 8, "behind": -1}[when]:
            put_back(tmp_path)
        bench.send("P/Commands/scan", {"n": n})
    if when == "behind":
        put_back(tmp_path)
    async with bench.serving():
        await bench.answer(9)  # lanes are being filled up from the journal
        assert bench.dispatcher.look_again() == 2
        await bench.answer(21)
        await anyio.wait_all_tasks_blocked()
    assert sorted(map(str, seen)) == sorted(map(str, [*range(20), 100, 101]))
    assert store.unfinished_count() == 0


@pytest.mark.parametrize("put_back_at", [2, -1])
@pytest.mark.parametrize("sent", [3, 4, 5, 12])
async def test_before_the_lanes_run_nothing_is_lost_or_handled_twice_either(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, put_back_at: int
) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LIMIT", 4)
    monkeypatch.setattr("kepm_plugin.dispatch._lane.LOW", 2)
    seen = list[object]()
    bench = Bench(noting(seen), store)
    bury(store, 100)
    for n in range(sent):
        if n == put_back_at:
            put_back(tmp_path)
        bench.send("P/Commands/scan", {"n": n})
    if put_back_at == -1:
        put_back(tmp_path)
    bench.dispatcher.look_again()
    async with bench.serving():
        await bench.answer(sent)
        await anyio.wait_all_tasks_blocked()
    assert sorted(map(str, seen)) == sorted(map(str, [*range(sent), 100]))


async def test_once_it_stops_the_plugin_leaves_them_for_the_next_run(store: Store, tmp_path: Path) -> None:
    seen = list[object]()
    bench = Bench(noting(seen), store)
    bury(store, 1)
    async with bench.serving():
        bench.dispatcher.close()
        put_back(tmp_path)
        assert bench.dispatcher.look_again() == 0
    assert (seen, store.unfinished_count()) == ([], 0), "not known of"
    with open_store(tmp_path) as again:
        assert len(again.unfinished()) == 1


async def test_a_file_that_cannot_be_read_is_said_until_it_can(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(fresh(), store)
    with monkeypatch.context() as patch:
        failing(store, patch, "added_by_others")
        assert bench.dispatcher.look_again() == 0
        assert bench.dispatcher.look_again() == 0
    assert bench.troubles == [("replay", "disk full")]
    bench.dispatcher.look_again()
    assert bench.troubles[1:] == [("replay", None)]


# --- the whole plugin -------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.runtime._serve.LOOK_AGAIN", 0.01)


def flaky() -> tuple[type[Plugin], list[str]]:
    """Return a plugin whose handler fails until the second element is emptied."""
    kind, wrong = fresh(heartbeat=0.05), ["no"]

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> int:
            if wrong:
                raise ValueError("not now")
            return message.delivery

    return kind, wrong


async def counters(host: Hosted[Plugin], **wanted: int) -> None:
    """Wait for a report with these counters."""
    with anyio.fail_after(5):
        for number in count(1):
            found = (await host.until_published("Status", number))[-1].get("counters", {})
            if wanted.items() <= found.items():
                return


@pytest.mark.usefixtures("soon")
async def test_a_running_plugin_finds_by_itself_what_commands_have_done(tmp_path: Path) -> None:
    kind, wrong = flaky()
    async with hosted(kind, data_dir=tmp_path, strict=False) as host:
        for _ in range(3):
            assert (await host.command("scan"))["error"] == "internal error"
        await counters(host, deadLetters=3, deadLettersDropped=0)
        wrong.clear()
        with letters_in(tmp_path) as letters:
            first, second, third = (entry.id for entry in letters.all())
            letters.purge([first])
            letters.put_back(second)
        answers = await host.until_published("Responses/scan", 4)
        assert answers[-1]["result"] == 1
        await counters(host, deadLetters=1, handled=1)
        with letters_in(tmp_path) as letters:
            assert [entry.id for entry in letters.all()] == [third]


async def test_what_was_put_back_while_it_did_not_run_is_handled_at_the_start(tmp_path: Path) -> None:
    kind, wrong = flaky()
    async with hosted(kind, data_dir=tmp_path, strict=False) as host:
        await host.command("scan")
    wrong.clear()
    put_back(tmp_path)
    async with hosted(kind, data_dir=tmp_path) as host:
        (answer,) = await host.until_published("Responses/scan")
        assert (answer["ok"], answer["result"]) == (True, 2)


async def test_without_a_journal_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: Store) -> None:
        raise StoreError("looked")

    monkeypatch.setattr("kepm_plugin.runtime._serve.LOOK_AGAIN", 0.001)
    monkeypatch.setattr(Store, "added_by_others", look)
    kind, wrong = flaky()
    kind.journal = False
    wrong.clear()
    async with hosted(kind) as host:
        await host.command("scan")
        await anyio.sleep(0.02)
        assert {report["state"] for report in host.published("Status")} == {"running"}
