"""How long the link waits between two attempts: the rule itself, and what the link does with it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import accumulate

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.errors import AgentUnreachable, InstanceError
from kepm_plugin.link import Deliver, LinkOptions, Session, Waits
from tests.engine.test_link import Scripted, on_mock_clock
from tests.engine.test_link import World as LinkWorld
from tests.engine.world import World, fresh

OPTIONS = LinkOptions(filters=lambda: ())
MUTE = AgentUnreachable("gave up after 5 s")


def bounds(*attempts: float) -> list[float]:
    """Return the bounds after attempts that took so long, where all the waits are as long as they may be."""
    waits, away, found = Waits(OPTIONS), 0.0, list[float]()
    for took in attempts:
        found.append(waits.after(took, away + took))
        away += took + found[-1]
    return found


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([0.0] * 6, [0.05, 0.1, 0.2, 0.4, 0.8, 0.8]),
        ([5.0] * 8, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]),
        ([0.99] * 2, [0.1, 0.2]),  # the tenth of the first, and of both and the wait between
        ([5.0, 0.0, 5.0, 0.0], [1.0, 0.6, 2.0, 1.36]),
    ],
    ids=["refused", "given up", "as good as refused", "in turn"],
)
def test_waits_double_and_those_after_a_slow_attempt_by_themselves(
    attempts: list[float], expected: list[float]
) -> None:
    assert bounds(*attempts) == pytest.approx(expected, rel=0.1)


def test_in_a_long_outage_a_wait_is_up_to_a_tenth_of_it_and_three_seconds() -> None:
    found = bounds(*[0.0] * 60)
    ends = list(accumulate(found))
    assert all(bound <= 0.8 for bound, end in zip(found, ends, strict=True) if end <= 8.0)
    assert all(bound <= 0.1 * end for bound, end in zip(found, ends, strict=True) if end > 10.0)
    assert found[-1] == 3.0


def test_the_first_wait_may_be_none() -> None:
    waits = Waits(OPTIONS, at_once=True)
    assert [waits.after(0.0, 0.0) for _ in range(3)] == [0.0, 0.05, 0.1]


@given(st.lists(st.floats(0, 20), max_size=40))
def test_whatever_attempts_take_waits_stay_within_their_limits(attempts: list[float]) -> None:
    for took, bound in zip(attempts, bounds(*attempts), strict=True):
        assert 0.05 <= bound <= (60.0 if took >= 1.0 else 3.0)


class Slow(LinkWorld):
    """Attempts end after five seconds, in nothing, until one is given up no more."""

    @asynccontextmanager
    async def connect(self, deliver: Deliver) -> AsyncGenerator[Session]:
        if self.plan[0] is MUTE:
            await anyio.sleep(5)
        async with super().connect(deliver) as session:
            yield session


@on_mock_clock
async def test_after_attempts_that_are_given_up_the_link_waits_longer_each_time() -> None:
    world = Slow(*[MUTE] * 4, Scripted())
    async with world.running():
        await world.until("up", within=60)
    assert [bound for _, bound in world.random.bounds] == [1.0, 2.0, 4.0, 8.0]
    assert anyio.current_time() == pytest.approx(4 * 5 + 1 + 2 + 4 + 8)


@on_mock_clock
async def test_in_a_long_wait_it_is_looked_each_second_and_a_sleep_of_the_machine_ends_it(
    clock: trio.testing.MockClock,
) -> None:
    looks: list[float] = []
    world = Slow(*[MUTE] * 5, Scripted())
    world.on_beat = lambda up: looks.append(anyio.current_time()) if not up else None
    async with world.running():
        await anyio.sleep(4 * 5 + 1 + 2 + 4 + 5.5)  # in the fourth wait, of 8 s
        assert len(looks) == 0 + 1 + 3 + 5
        assert world.history.report()["connecting"] == 4
        clock.jump(3600)
        await anyio.sleep(0.1)
        assert world.history.report()["connecting"] == 5
        assert world.history.report()["resumed"] == 1


@on_mock_clock
async def test_an_orphan_does_not_wait_for_the_end_of_a_long_wait() -> None:
    broker = Slow(MUTE)

    @asynccontextmanager
    async def connect(client_id: str, deliver: Deliver, **_: object) -> AsyncGenerator[Session]:
        async with broker.connect(deliver) as session:
            yield session

    world = World(fresh(), connect=connect)
    async with world.running():
        await anyio.sleep(6 * 60)  # waits are up to a minute by now
        world.launcher_gone = True
        since = anyio.current_time()
        with pytest.raises(InstanceError, match=r"the link is lost \(gave up after 5 s\)"):
            raise (await world.ended(within=8)).error or AssertionError
        assert anyio.current_time() - since <= 6
