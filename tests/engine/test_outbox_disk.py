"""Publications that wait on disk: their order across kills, losses and full disks, shared commits, limits, ages."""

import sqlite3
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kepm_plugin.errors import LinkLost
from kepm_plugin.store import FILE, Keep, Store, open_store
from tests.engine.disk import Disk, numbers, on_disk, settled
from tests.engine.test_outbox import Wire, one

# --- what is promised -------------------------------------------------------------------------------------------------


async def test_publish_returns_when_the_publication_is_on_disk(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put("a")
            other = sqlite3.connect(tmp_path / FILE)
            assert other.execute("SELECT payload FROM kept").fetchall() == [(b"a",)]
            other.close()


async def test_what_the_broker_has_acknowledged_is_forgotten_and_nothing_else(store: Store) -> None:
    wire = Wire()
    async with on_disk(store) as disk:
        disk.outbox.attach(wire)
        await disk.put("a", "b", "c")
        wire.acknowledge(2)
        await settled()
        assert disk.kept() == [b"c"]
        wire.acknowledge()
        await settled()
        assert (disk.kept(), len(disk.outbox)) == ([], 0)


async def test_publications_of_one_turn_share_a_commit_and_so_do_acknowledgements(store: Store) -> None:
    wire = Wire(in_flight_maximum=1000)
    async with on_disk(store) as disk:
        disk.outbox.attach(wire)
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(disk.put, number)
        assert disk.commits == [(50, 0)]
        wire.acknowledge(30)
        disk.put_soon("more")
        await settled()
        assert disk.commits == [(50, 0), (1, 30)]


async def test_a_large_burst_is_written_in_several_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.outbox._disk.BATCH", 20)
    monkeypatch.setattr("kepm_plugin.outbox._disk.BATCH_BYTES", 100)
    async with on_disk(store) as disk:
        disk.put_soon(*range(50))
        disk.put_soon("x" * 90, "y" * 90, "z" * 90)
        await settled()
        assert [kept for kept, _ in disk.commits] == [20, 20, 11, 2]
        assert disk.kept() == [*numbers(range(50)), b"x" * 90, b"y" * 90, b"z" * 90]


async def test_at_qos_0_nothing_is_written(store: Store) -> None:
    wire = Wire()
    async with on_disk(store) as disk:
        await disk.outbox.put(one("a", qos=0), kind=Keep.PUBLICATION)
        disk.outbox.put_soon(one("b", qos=0), kind=Keep.PUBLICATION)
        await settled()
        assert (disk.commits, disk.kept()) == ([], [])
        disk.outbox.attach(wire)
    assert wire.sent == [b"a", b"b"]


async def test_an_outbox_in_memory_writes_nothing_and_still_sends_what_is_kept(store: Store) -> None:
    store.keep([(Keep.PUBLICATION, one("earlier"))])
    wire = Wire(at_once=True)
    async with on_disk(store, keeping=False) as disk:
        await disk.put("a")
        disk.outbox.attach(wire)
        await settled()
        assert (wire.sent, disk.commits, disk.kept()) == ([b"earlier", b"a"], [(0, 1)], [])


async def test_publish_can_wait_for_the_acknowledgement_of_what_is_not_in_memory(
    store: Store, small_window: None
) -> None:
    wire, told = Wire(in_flight_maximum=1), list[int]()

    async def publish(number: int) -> None:
        await disk.put(number, wait="acknowledged")
        told.append(number)

    async with on_disk(store) as disk, anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(publish, number)
            await settled()
        disk.outbox.attach(wire)
        for number in range(9):
            await settled()
            assert told == list(range(number))
            wire.acknowledge()


async def test_an_acknowledgement_that_does_not_come_is_told_and_the_publication_stays(store: Store) -> None:
    async with on_disk(store) as disk:
        with anyio.fail_after(5), pytest.raises(LinkLost, match="it stays queued"):
            await disk.put("a", wait="acknowledged", timeout=0.01)
        assert disk.kept() == [b"a"]


async def test_a_publish_that_is_cancelled_is_sent_all_the_same(store: Store) -> None:
    async with on_disk(store) as disk:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await disk.put("a")
        assert scope.cancelled_caught
        await settled()
        assert disk.kept() == [b"a"]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 3, 100])
async def test_after_a_kill_everything_kept_is_sent_first_and_in_order(
    tmp_path: Path, small_window: None, in_flight: int
) -> None:
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            await disk.put(*range(10))
            disk.answer(10)
            await disk.put(*range(11, 20))
    wire = Wire(in_flight_maximum=in_flight)
    with open_store(tmp_path) as store:
        async with on_disk(store) as disk:
            disk.outbox.put_soon(one(20, qos=0))
            await disk.put(21)
            disk.outbox.put_soon(one(22, qos=0))
            disk.outbox.attach(wire)
            for _ in range(23):
                await settled()
                assert len(wire.waiting) <= in_flight
                wire.acknowledge()
            await settled()
            assert (disk.kept(), len(disk.outbox)) == ([], 0)
    assert wire.sent == numbers(range(23))


async def test_order_is_kept_between_disk_memory_and_answers_whatever_of_it_is_in_the_window(
    store: Store, small_window: None
) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store) as disk:
        for number in range(30):
            match number % 3:
                case 0:
                    await disk.put(number)
                case 1:
                    disk.outbox.put_soon(one(number))  # such as a request, and what is published at QoS 0
                case _:
                    disk.answer(number)
        disk.outbox.attach(wire)
        await settled()
    assert wire.sent == numbers(range(30))


async def test_what_is_to_go_first_does(store: Store, small_window: None) -> None:
    wire = Wire(at_once=True)
    async with on_disk(store) as disk:
        await disk.put(*range(10))
        disk.outbox.put_soon(one("stopping"), first=True)
        disk.outbox.put_soon(one("stopped"), first=True)
        disk.outbox.attach(wire)
        await settled()
    assert wire.sent == [b"stopping", b"stopped", *numbers(range(10))]


async def test_as_many_are_in_flight_as_the_broker_allows_whether_they_are_in_the_window_or_not(
    store: Store, small_window: None
) -> None:
    wire = Wire(in_flight_maximum=8)
    async with on_disk(store) as disk:
        await disk.put(*range(10))
        disk.outbox.attach(wire)
        await settled()
        assert wire.sent == numbers(range(8))


async def test_after_a_loss_what_was_not_acknowledged_goes_first(store: Store, small_window: None) -> None:
    first, second = Wire(in_flight_maximum=3), Wire(at_once=True)
    async with on_disk(store) as disk:
        await disk.put(*range(10))
        assert len(disk.outbox) == 10
        disk.outbox.attach(first)
        await settled()
        first.acknowledge(2)
        await settled()
        assert first.sent == numbers(range(5))
        disk.outbox.detach()
        await disk.put(10)
        disk.outbox.attach(second)
        await settled()
    assert second.sent == numbers(range(2, 11))


class Story:
    """Processes one after the other on one file, each killed; the steps tell what happens to them."""

    def __init__(self, folder: Path, steps: list[str], in_flight: int, at_once: bool) -> None:
        self.folder, self.steps = folder, steps
        self.connect = partial(Wire, in_flight, at_once=at_once)
        self.numbers = count()
        self.wires: list[Wire] = []
        self.promised: set[bytes] = set()
        self.acknowledged: set[bytes] = set()
        self.before: list[set[bytes]] = []
        """What was acknowledged when each of the wires began."""

    async def process(self) -> None:
        """Live until the next kill."""
        wire = Wire(gone=True)
        with open_store(self.folder) as store:
            async with on_disk(store) as disk:
                while self.steps:
                    step = self.steps.pop()
                    name = b"%d" % next(self.numbers)
                    match step:
                        case "put":
                            await disk.put(name.decode())
                            self.promised.add(name)
                        case "answer":
                            disk.answer(name.decode())
                            self.promised.add(name)
                        case "memory":
                            disk.outbox.put_soon(one(name.decode()))
                        case "acknowledge":
                            wire.acknowledge(len(wire.waiting) // 2)
                        case "lose":
                            disk.outbox.detach()
                            wire = Wire(gone=True)
                        case "connect":
                            disk.outbox.detach()
                            wire = self.begin(disk)
                        case _:
                            break
                    await settled()
                    assert len(wire.waiting) <= max(wire.in_flight_maximum, 1)
                    self.acknowledged |= set(wire.sent[: len(wire.sent) - len(wire.waiting)])
                if not self.steps:
                    await self.send_all(disk)

    def begin(self, disk: Disk) -> Wire:
        self.wires.append(self.connect())
        self.before.append(set(self.acknowledged))
        disk.outbox.attach(self.wires[-1])
        return self.wires[-1]

    async def send_all(self, disk: Disk) -> None:
        disk.outbox.detach()
        wire = self.begin(disk)
        await settled()
        while wire.waiting:
            wire.acknowledge(len(wire.waiting))
            await settled()
        assert (len(disk.outbox), disk.kept()) == (0, [])


STEPS = st.sampled_from(["put", "put", "memory", "answer", "acknowledge", "lose", "connect", "kill"])


@given(st.lists(STEPS, max_size=60), st.integers(min_value=1, max_value=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_happens_nothing_kept_is_lost_and_each_session_sees_one_order(
    steps: list[str], in_flight: int, at_once: bool
) -> None:
    async def tell() -> None:
        while not story.wires or story.steps:
            await story.process()

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("kepm_plugin.outbox._disk.WINDOW", 4)
        patch.setattr("kepm_plugin.outbox._disk.PART", 3)
        story = Story(Path(folder), steps, in_flight, at_once)
        anyio.run(tell)
    for wire, before in zip(story.wires, story.before, strict=True):
        assert wire.sent == sorted(wire.sent, key=int)
        assert not before.intersection(wire.sent)
    assert story.promised <= {name for wire in story.wires for name in wire.sent}
