"""What the outbox does with too much, with what is too old, and with a disk that takes or gives nothing."""

import errno
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from kepm_plugin.errors import Overloaded, StoreError
from kepm_plugin.message import Publication
from kepm_plugin.outbox import MAX_AGE
from kepm_plugin.store import Keep, Limits, Store, memory_store, open_store
from tests.engine.disk import full_disk, numbers, on_disk, settled
from tests.engine.test_outbox import Clock, Wire, one

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)

DAY = 86_400.0


def record(text: str) -> Publication:
    return Publication("KeeperLogger", text.encode())


# --- too much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [Limits(kept=3), Limits(kept_bytes=3 * (100 + len("P/Findings") + 10))], ids=["count", "bytes"]
)
async def test_a_full_disk_share_is_told_to_who_waits_and_counted_for_who_does_not(limits: Limits) -> None:
    wire = Wire()
    with memory_store(limits=limits) as store:
        async with on_disk(store) as disk:
            await disk.put("0123456789", "1")
            disk.put_soon("2")
            assert disk.outbox.put_soon(one("345678901234567890123456789012"), kind=Keep.PUBLICATION) is False
            assert disk.outbox.dropped == 1
            with anyio.fail_after(5), pytest.raises(Overloaded, match=r"full for 0.01 s, with 3 publications of "):
                await disk.put("345678901234567890123456789012", timeout=0.01)
            disk.outbox.attach(wire)
            await settled()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(disk.put, "345678901234567890123456789012")
                await settled()
                assert len(wire.sent) == 3
                wire.acknowledge(2)
            await settled()
            assert wire.sent[-1] == b"345678901234567890123456789012"


async def test_who_waits_for_the_disk_and_who_waits_for_memory_do_not_hold_each_other_up() -> None:
    wire = Wire(in_flight_maximum=1)
    with memory_store(limits=Limits(kept=1)) as store:
        async with on_disk(store, limit=2) as disk:
            await disk.put("kept")
            disk.outbox.put_soon(one("a"))
            disk.outbox.put_soon(one("b"))
            assert disk.outbox.put_soon(one("c")) is False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(disk.put, "kept too")
                tasks.start_soon(disk.outbox.put, one("c"))
                await settled()
                disk.outbox.attach(wire)
                for _ in range(5):
                    await settled()
                    wire.acknowledge()
            await settled()
            assert (sorted(wire.sent), disk.kept()) == ([b"a", b"b", b"c", b"kept", b"kept too"], [])


async def test_an_answer_is_taken_beyond_every_limit() -> None:
    wire = Wire(at_once=True)
    with memory_store(limits=Limits(kept=1, kept_bytes=1)) as store:
        async with on_disk(store, limit=1) as disk:
            for name in "abc":
                disk.answer(name)
            disk.outbox.attach(wire)
            await settled()
            assert (wire.sent, disk.kept(), disk.outbox.dropped) == ([b"a", b"b", b"c"], [], 0)


async def test_an_answer_that_is_too_large_for_ever_is_given_up(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store, size=4) as disk:
        disk.answer("12345")
        disk.answer("1234")
        disk.outbox.attach(wire)
        await settled()
        assert (wire.sent, disk.kept(), disk.outbox.dropped) == ([b"1234"], [], 1)
    assert [each.message for each in caplog.records] == ["publication.too_large"]


async def test_a_burst_waits_in_memory_up_to_the_limit_of_memory(store: Store) -> None:
    async with on_disk(store, limit=3, size=100) as disk:
        disk.put_soon("a", "b", "c")
        assert disk.outbox.put_soon(one("d"), kind=Keep.PUBLICATION) is False
        await settled()
        disk.put_soon("d" * 100)
        assert disk.outbox.put_soon(one("e"), kind=Keep.PUBLICATION) is False
        await disk.put("e")
        assert disk.kept() == [b"a", b"b", b"c", b"d" * 100, b"e"]


async def test_records_have_a_share_of_their_own() -> None:
    with memory_store(limits=Limits(kept=1, records=2)) as store:
        async with on_disk(store) as disk:
            for text in "ab":
                assert disk.outbox.keeps_records
                await disk.outbox.put(record(text), wait="safe", kind=Keep.RECORD)
            assert not disk.outbox.keeps_records
            await disk.put("publication")
            assert disk.kept() == [b"a", b"b", b"publication"]


async def test_a_record_that_was_sent_and_not_acknowledged_is_written_at_the_loss(store: Store) -> None:
    wire, returned = Wire(in_flight_maximum=1), anyio.Event()

    async def ship() -> None:
        await disk.outbox.put(record("last"), wait="safe", kind=Keep.RECORD)
        returned.set()

    async with on_disk(store) as disk, anyio.create_task_group() as tasks:
        disk.outbox.attach(wire)
        disk.outbox.put_soon(record("first"), kind=Keep.RECORD)
        tasks.start_soon(ship)
        await settled()
        assert (wire.sent, disk.kept(), returned.is_set()) == ([b"first"], [], False)
        disk.outbox.detach()
        await settled()
        assert (disk.kept(), returned.is_set()) == ([b"first", b"last"], True)


# --- too old ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
async def test_what_is_too_old_is_dropped_at_a_connect_and_counted_but_answers_are_not(
    tmp_path: Path, restart: bool, caplog: pytest.LogCaptureFixture, small_window: None
) -> None:
    now, wire = Clock(), Wire(at_once=True)
    with open_store(tmp_path, now=now) as store:
        async with on_disk(store) as disk:
            await disk.put(*range(10))
            disk.answer(10)
            now.now += 7 * DAY - 1
            await disk.put(11)
            now.now += 2
            if not restart:
                first = Wire(in_flight_maximum=0)
                assert (disk.outbox.attach(first), len(disk.outbox)) == (10, 2)
                disk.outbox.detach()
                disk.outbox.attach(wire)
                await settled()
                assert (disk.outbox.dropped, len(disk.outbox), disk.kept()) == (10, 0, [])
    with open_store(tmp_path, now=now) as store:
        async with on_disk(store) as disk:
            assert disk.outbox.attach(wire) == (10 if restart else 0)
            await settled()
            assert (len(disk.outbox), disk.kept()) == (0, [])
    assert wire.sent == numbers(10, 11)
    assert [vars(each)["count"] for each in caplog.records if each.message == "publications.too_old"] == [10]


@pytest.mark.parametrize("restart", [False, True])
async def test_what_was_kept_before_the_clock_was_set_has_no_age(tmp_path: Path, restart: bool) -> None:
    now, wire = Clock(), Wire(at_once=True)
    now.now = 100.0
    with open_store(tmp_path, now=now) as store:
        async with on_disk(store) as disk:
            await disk.put("in 1970")
            now.now = 2e9
            await disk.put("now")
            now.now += 8 * DAY
            if not restart:
                assert disk.outbox.attach(wire) == 1
                await settled()
    with open_store(tmp_path, now=now) as store:
        async with on_disk(store) as disk:
            assert disk.outbox.attach(wire) == (1 if restart else 0)
            await settled()
            assert disk.kept() == []
    assert wire.sent == [b"in 1970"]


async def test_what_was_sent_and_not_acknowledged_becomes_too_old_as_well(tmp_path: Path) -> None:
    now, first, second = Clock(), Wire(), Wire(at_once=True)
    with open_store(tmp_path, now=now) as store:
        async with on_disk(store) as disk:
            disk.outbox.attach(first)
            await disk.put("a", "b")
            now.now += 8 * DAY
            await disk.put("c")
            first.acknowledge()
            disk.outbox.detach()
            assert disk.outbox.attach(second) == 1, "the acknowledged one is none that was dropped"
    assert second.sent == [b"c"]


async def test_the_disk_is_more_patient_than_memory_and_a_sleep_of_the_machine_makes_nothing_too_old(
    tmp_path: Path,
) -> None:
    clock, wire = Clock(), Wire(in_flight_maximum=0)
    with open_store(tmp_path, now=clock) as store:
        async with on_disk(store, clock=clock) as disk:
            await disk.put("kept")
            disk.outbox.put_soon(one("memory"))
            clock.now += MAX_AGE + 1
            assert disk.outbox.attach(wire) == 1
            disk.outbox.detach()
            clock.now += 8 * DAY
            assert disk.outbox.attach(wire, anew=True) == 0
            disk.outbox.detach()
            disk.outbox.attach(again := Wire(at_once=True), anew=True)
            await settled()
    assert again.sent == [b"kept"]


# --- a disk that takes nothing ----------------------------------------------------------------------------------------


@on_asyncio
async def test_a_full_disk_keeps_publications_in_memory_says_so_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.outbox._disk.RETRY", 0.01)
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put("a")
            with full_disk(tmp_path):
                with anyio.fail_after(5), pytest.raises(StoreError, match=r"'P/Findings' .* within 0.05 s; .*process"):
                    await disk.put("b", timeout=0.05)
                disk.put_soon("c")
                [trouble] = set(disk.troubles)
                assert trouble is not None
                assert "cannot keep publications in" in trouble
                assert disk.kept() == [b"a"]
            await disk.put("d")
            assert disk.troubles[-1] is None
            assert disk.kept() == [b"a", b"b", b"c", b"d"]
    with open_store(tmp_path) as store:
        assert [publication.payload for _, publication in store.kept()] == [b"a", b"b", b"c", b"d"]


@on_asyncio
async def test_while_the_disk_is_full_publications_go_out_over_the_link_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.outbox._disk.RETRY", 3600.0)
    first, second = Wire(in_flight_maximum=3), Wire(at_once=True)
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put("a", "b")
            with full_disk(tmp_path), anyio.fail_after(5):
                disk.put_soon("c", "d")
                disk.outbox.attach(first)
                await settled()
                assert first.sent == [b"a", b"b", b"c"]
                first.acknowledge(3)
                assert first.sent == [b"a", b"b", b"c", b"d"]
                disk.outbox.detach()
                disk.outbox.attach(second)
                await disk.put("e", "f")  # whatever the broker has is safe, and it has it before the next try
            assert second.sent == [b"d", b"e", b"f"]
            assert len(disk.outbox) == 0


@on_asyncio
async def test_a_disk_that_is_full_is_still_read_and_nothing_overtakes_what_lies_on_it(
    tmp_path: Path, small_window: None
) -> None:
    wire = Wire(in_flight_maximum=1)
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put(*range(10))
            with full_disk(tmp_path):
                disk.put_soon(10, 11)
                disk.outbox.attach(wire)
                for _ in range(12):
                    await settled()
                    wire.acknowledge()
                assert wire.sent == numbers(range(12))


@on_asyncio
async def test_what_was_sent_without_being_written_is_written_after_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.outbox._disk.RETRY", 0.01)
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put("a")
            with full_disk(tmp_path):
                disk.outbox.attach(Wire())
                disk.put_soon("b", "c")
                await settled()
                disk.outbox.detach()
            await disk.put("d")
            assert disk.kept() == [b"a", b"b", b"c", b"d"]


def refusing(store: Store, method: str) -> Callable[[], None]:
    """Let a method of the store fail until what is returned is called."""

    def fail(*_: object) -> None:
        raise StoreError(f"cannot read: {errno.errorcode[errno.EIO]}")

    patch = pytest.MonkeyPatch()
    patch.setattr(store, method, fail)
    return patch.undo


@on_mock_clock
async def test_what_cannot_be_read_is_read_later(store: Store, small_window: None) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store) as disk:
        await disk.put(*range(10))
        mend = refusing(store, "kept")
        disk.outbox.attach(wire)
        await settled()
        assert (wire.sent, set(disk.troubles)) == (numbers(range(4)), {"cannot read: EIO"})
        mend()
        await anyio.sleep(1.1)
        assert (wire.sent, disk.troubles[-1]) == (numbers(range(10)), None)


@on_mock_clock
async def test_what_cannot_be_written_does_not_overtake_what_cannot_be_read(store: Store, small_window: None) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store) as disk:
        await disk.put(*range(10))
        mend = [refusing(store, method) for method in ("keep", "kept")]
        disk.put_soon(10)
        disk.outbox.attach(wire)
        await settled()
        assert wire.sent == numbers(range(4))
        for each in reversed(mend):
            each()
        await anyio.sleep(1.1)
        assert wire.sent == numbers(range(11))


@on_mock_clock
async def test_ages_that_cannot_be_read_drop_nothing(store: Store) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store) as disk:
        await disk.put("a")
        mend = refusing(store, "expire")
        assert disk.outbox.attach(wire) == 0
        mend()
        await anyio.sleep(1.1)
        assert (wire.sent, disk.troubles) == ([b"a"], ["cannot read: EIO", None])


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_at_the_end_what_can_be_written_is_and_the_rest_is_told(store: Store) -> None:
    async with on_disk(store) as disk:
        disk.outbox.attach(Wire())
        await disk.put("a")
        disk.put_soon("b")
        disk.outbox.put_soon(one("in memory"))
        assert disk.outbox.close() == 1
        assert (disk.kept(), disk.outbox.dropped) == ([b"a", b"b"], 1)
        await disk.put("too late")  # returns, since nobody will write it


async def test_at_the_end_what_a_broken_disk_does_not_take_is_told_too(
    store: Store,
) -> None:
    async with on_disk(store) as disk:
        mend = refusing(store, "keep")
        disk.put_soon("a", "b")
        assert disk.outbox.close() == 2
        mend()
