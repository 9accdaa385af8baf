"""Publications on their way out: order, pipelining, deadlines, and what a loss of the link costs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.errors import BadPayload, LinkLost, Overloaded
from kepm_plugin.message import Publication
from kepm_plugin.outbox import MAX_AGE, Outbox


@dataclass
class Wire:
    """A session that does what the test says."""

    in_flight_maximum: int = 20
    gone: bool = False
    at_once: bool = False
    """Acknowledge from inside `publish`, as a session does at QoS 0."""
    sent: list[bytes] = field(default_factory=list[bytes])
    waiting: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        if self.gone:
            raise LinkLost("cut")
        self.sent.append(publication.payload)
        assert acknowledged is not None
        if self.at_once:
            acknowledged()
        else:
            self.waiting.append(acknowledged)

    def acknowledge(self, count: int = 1) -> None:
        for _ in range(count):
            self.waiting.pop(0)()


class Clock:
    def __init__(self) -> None:
        self.now = 2e9

    def __call__(self) -> float:
        return self.now


def one(name: object, qos: int = 1) -> Publication:
    return Publication("P/Findings", str(name).encode(), qos)


def filled(outbox: Outbox, *names: object) -> Outbox:
    for name in names:
        assert outbox.put_soon(one(name))
    return outbox


async def test_what_was_put_first_is_sent_first_whenever_the_link_comes() -> None:
    outbox, wire = Outbox(), Wire()
    await outbox.put(one("a"))
    filled(outbox, "b")
    assert outbox.attach(wire) == 0
    await outbox.put(one("c"))
    assert wire.sent == [b"a", b"b", b"c"]


async def test_as_many_are_in_flight_as_the_broker_allows_and_no_more() -> None:
    outbox, wire = Outbox(), Wire(in_flight_maximum=3)
    outbox.attach(wire)
    filled(outbox, *range(6))
    assert wire.sent == [b"0", b"1", b"2"]
    wire.acknowledge()
    assert wire.sent == [b"0", b"1", b"2", b"3"]
    wire.acknowledge(4)
    assert wire.sent == [b"%d" % number for number in range(6)]
    assert len(outbox) == 1


async def test_after_a_loss_what_was_not_acknowledged_goes_first_and_in_order() -> None:
    outbox, first, second = Outbox(), Wire(in_flight_maximum=3), Wire()
    outbox.attach(first)
    filled(outbox, *range(5))
    first.acknowledge()
    outbox.detach()
    outbox.attach(second)
    assert second.sent == [b"1", b"2", b"3", b"4"]


async def test_a_loss_that_shows_while_sending_keeps_everything_in_order() -> None:
    outbox, first, second = Outbox(), Wire(in_flight_maximum=2), Wire()
    outbox.attach(first)
    filled(outbox, *range(4))
    first.gone = True
    first.acknowledge()
    filled(outbox, 4)
    outbox.detach()  # as the link reports it a moment later
    outbox.attach(second)
    assert (first.sent, second.sent) == ([b"0", b"1"], [b"1", b"2", b"3", b"4"])


async def test_an_acknowledgement_from_before_the_loss_changes_nothing() -> None:
    outbox, first = Outbox(), Wire()
    outbox.attach(first)
    filled(outbox, "a")
    outbox.detach()
    first.acknowledge()
    assert len(outbox) == 1


async def test_acknowledgements_from_inside_of_publish_keep_order_and_end_in_an_empty_outbox() -> None:
    outbox, wire = Outbox(), Wire(in_flight_maximum=1, at_once=True)
    filled(outbox, *range(2000))
    outbox.attach(wire)
    assert wire.sent == [b"%d" % number for number in range(2000)]
    assert len(outbox) == 0


async def test_publish_can_wait_for_the_brokers_acknowledgement() -> None:
    outbox, wire = Outbox(), Wire()
    outbox.attach(wire)
    returned = anyio.Event()

    async def publish() -> None:
        await outbox.put(one("a"), wait="acknowledged")
        returned.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish, name="publish")
            await anyio.wait_all_tasks_blocked()
            assert not returned.is_set()
            wire.acknowledge()
            await returned.wait()


@pytest.mark.parametrize("seconds", [None, 0.0])
async def test_an_acknowledgement_at_once_is_in_time_for_every_deadline(seconds: float | None) -> None:
    outbox = Outbox()
    outbox.attach(Wire(at_once=True))
    await outbox.put(one("a"), wait="acknowledged", timeout=seconds)
    assert len(outbox) == 0


async def test_without_an_acknowledgement_until_the_deadline_it_stays_queued() -> None:
    outbox, wire = Outbox(), Wire()
    with anyio.fail_after(5), pytest.raises(LinkLost, match=r"'P/Findings' .* within 0.01 s; it stays queued"):
        await outbox.put(one("a"), wait="acknowledged", timeout=0.01)
    outbox.attach(wire)
    assert wire.sent == [b"a"]


@pytest.mark.parametrize("wait", ["queued", "acknowledged"])
async def test_a_full_outbox_is_overloaded_after_the_deadline(wait: Any) -> None:
    outbox = filled(Outbox(limit=2), "a", "b")
    with anyio.fail_after(5), pytest.raises(Overloaded, match=r"full for 0.01 s, with 2 publications of 2 bytes"):
        await outbox.put(one("c"), wait=wait, timeout=0.01)
    assert len(outbox) == 2


async def test_who_waits_for_room_is_served_in_turn_when_there_is_some() -> None:
    outbox, wire = Outbox(limit=2), Wire()
    outbox.attach(wire)
    filled(outbox, "a", "b")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for name in "cde":
                tasks.start_soon(outbox.put, one(name), name=name)
                await anyio.wait_all_tasks_blocked()
            wire.acknowledge(2)  # at once, so that the count passes the limit in a leap
            await anyio.wait_all_tasks_blocked()
            assert len(wire.sent) == 4
            wire.acknowledge()
    assert sorted(wire.sent) == [b"a", b"b", b"c", b"d", b"e"]


async def test_room_that_comes_of_dropping_the_old_wakes_who_waits() -> None:
    clock, wire = Clock(), Wire()
    outbox = filled(Outbox(clock, limit=3), *range(3))
    clock.now += MAX_AGE + 1
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.put, one("new"), name="put")
            await anyio.wait_all_tasks_blocked()
            assert outbox.attach(wire) == 3
    assert wire.sent == [b"new"]


@pytest.mark.parametrize("wait", ["queued", "acknowledged"])
async def test_an_outbox_is_full_by_bytes_as_well(wait: Any) -> None:
    outbox, wire = Outbox(size=10), Wire()
    filled(outbox, "12345", "6789")
    assert outbox.put_soon(one("ab")) is False
    assert outbox.put_soon(one("a"))
    with anyio.fail_after(5), pytest.raises(Overloaded, match="3 publications of 10 bytes"):
        await outbox.put(one("b"), wait=wait, timeout=0.01)
    outbox.attach(wire)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.put, one("xyz"), name="put")
            await anyio.wait_all_tasks_blocked()
            wire.acknowledge()
    assert wire.sent == [b"12345", b"6789", b"a", b"xyz"]
    outbox.detach()
    outbox.attach(again := Wire(at_once=True))
    assert again.sent == [b"6789", b"a", b"xyz"]
    assert outbox.put_soon(one("1234567890")), "the room is there again"


async def test_room_in_bytes_comes_of_dropping_the_old_too() -> None:
    clock = Clock()
    outbox = filled(Outbox(clock, size=4), "1234")
    clock.now += MAX_AGE + 1
    assert outbox.attach(Wire()) == 1
    assert outbox.put_soon(one("5678"))


@pytest.mark.parametrize("wait", ["queued", "acknowledged"])
async def test_what_is_larger_than_the_whole_outbox_is_refused_at_once(wait: Any) -> None:
    outbox = Outbox(size=4)
    with pytest.raises(BadPayload, match=r"'P/Findings' has 5 bytes, and more than 4"):
        await outbox.put(one("12345"), wait=wait)
    assert (len(outbox), outbox.dropped) == (0, 0)


async def test_what_is_too_large_is_given_up_for_good(caplog: pytest.LogCaptureFixture) -> None:
    outbox, told = Outbox(size=4), list[str]()
    assert outbox.put_soon(one("12345"), lambda: told.append("forgotten")) is False
    assert outbox.put_soon(one("12345")) is False
    assert (told, outbox.dropped, len(outbox)) == (["forgotten"], 2, 0)
    assert [record.message for record in caplog.records] == ["publication.too_large"] * 2


async def test_put_soon_drops_and_counts_where_there_is_no_room() -> None:
    outbox = filled(Outbox(limit=1), "a")
    assert outbox.put_soon(one("b")) is False
    assert (outbox.dropped, len(outbox)) == (1, 1)


async def test_what_waited_too_long_is_dropped_at_the_next_connect_and_counted() -> None:
    clock, wire = Clock(), Wire()
    outbox = filled(Outbox(clock), "old")
    clock.now += MAX_AGE - 1
    filled(outbox, "new")
    clock.now += 2
    assert outbox.attach(wire) == 1
    assert (wire.sent, outbox.dropped) == ([b"new"], 1)


async def test_a_sleep_of_the_machine_makes_nothing_too_old() -> None:
    clock, first, second = Clock(), Wire(in_flight_maximum=1), Wire()
    outbox = filled(Outbox(clock), "a", "b")
    clock.now += 10 * MAX_AGE
    assert outbox.attach(first, anew=True) == 0
    outbox.detach()
    clock.now += MAX_AGE - 1
    assert outbox.attach(second) == 0
    assert second.sent == [b"a", b"b"]


async def test_flushed_returns_when_everything_is_acknowledged() -> None:
    outbox, wire, flushed = Outbox(), Wire(), anyio.Event()
    outbox.attach(wire)

    async def flush() -> None:
        await outbox.flushed()
        flushed.set()

    with anyio.fail_after(5):
        await outbox.flushed()  # nothing to wait for
        filled(outbox, "a", "b")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flush, name="flush")
            await anyio.wait_all_tasks_blocked()
            wire.acknowledge()
            await anyio.wait_all_tasks_blocked()
            assert not flushed.is_set()
            wire.acknowledge()


@given(
    st.lists(st.sampled_from(["put", "acknowledge", "lose", "connect"]), max_size=60),
    st.integers(min_value=1, max_value=4),
    st.booleans(),
)
def test_whatever_happens_nothing_is_lost_and_each_session_sees_one_order(
    steps: list[str], in_flight: int, at_once: bool
) -> None:
    outbox, wires, count, known = Outbox(), [Wire()], 0, set[bytes]()
    wires[0].gone = True

    def connect() -> None:
        outbox.detach()
        wires.append(Wire(in_flight, at_once=at_once))
        outbox.attach(wires[-1])

    def acknowledge() -> None:
        known.add(wires[-1].sent[-len(wires[-1].waiting)])
        wires[-1].acknowledge()

    for step in steps:
        if step == "put":
            filled(outbox, count)
            count += 1
        elif step == "connect":
            connect()
        elif step == "lose":
            wires[-1].gone = True
        elif wires[-1].waiting:
            acknowledge()
        assert len(wires[-1].waiting) <= in_flight
    connect()
    while wires[-1].waiting:
        acknowledge()
    for wire in wires:
        numbers = [int(each) for each in wire.sent]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert {each for wire in wires for each in wire.sent} == {b"%d" % number for number in range(count)}
    assert at_once or len(known) == count
    assert len(outbox) == 0
