"""`every` and `background`: what runs without a message. Hours pass here in no time."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import anyio
import pytest

from kepm_plugin import Plugin, Settings, background, every
from tests.engine.world import World

pytestmark = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class Timed(Plugin, abstract=True):
    """Notes when something was called, in seconds since it was made."""

    times: list[float]
    number: Iterator[int]

    def __init__(self) -> None:
        self.times, self.number, self._start = [], count(1), anyio.current_time()

    def note(self) -> int:
        self.times.append(anyio.current_time() - self._start)
        return next(self.number)

    def waits(self) -> list[float]:
        return [after - before for before, after in zip([0.0, *self.times], self.times, strict=False)]


def near(times: list[float], *expected: float) -> bool:
    return len(times) == len(expected) and all(
        abs(time - each) <= 0.051 * each for time, each in zip(times, expected, strict=True)
    )


async def run(kind: type[Plugin], seconds: float, **world: Any) -> World:
    ran = World(kind, **world)
    async with ran.running():
        await ran.served()
        await anyio.sleep(seconds)
    return ran


async def test_a_tick_comes_once_per_period_with_jitter() -> None:
    class P(Timed):
        id = "P"

        @every(minutes=5)
        async def sweep(self) -> None:
            self.note()

    world = await run(P, 3600)
    assert near(world.plugin.waits()[:10], *[300] * 10)
    assert len(set(world.plugin.waits()[:10])) > 1


async def test_ticks_of_one_method_never_overlap_and_many_missed_ones_make_one() -> None:
    class P(Timed):
        id = "P"
        running = 0

        @every(seconds=10)
        async def sweep(self) -> None:
            assert self.running == 0
            self.running += 1
            if self.note() == 2:
                await anyio.sleep(95)
            self.running -= 1

    world = await run(P, 150)
    first, second, third, fourth = world.plugin.waits()[:4]
    assert near([first, second, third, fourth], 10, 10, 95, 10)


async def test_a_tick_that_fails_is_logged_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    class P(Timed):
        id = "P"

        @every(hours=1)
        async def sweep(self) -> None:
            self.note()
            raise ValueError("no")

    world = await run(P, 3600 * 3.5)
    assert near(world.plugin.waits(), 3600, 3600, 3600)
    failed = [record for record in caplog.records if record.message == "tick.failed"]
    assert [vars(record)["method"] for record in failed] == ["sweep"] * 3
    assert world.states()[0] == "running"
    assert "degraded" not in world.states()


class Numbers(Settings):
    poll_seconds: float = 10


class Durations(Settings):
    poll_seconds: timedelta = timedelta(seconds=10)


@pytest.mark.parametrize("own", [Numbers, Durations])
async def test_a_period_from_the_settings_is_read_before_each_wait_and_one_that_is_none_pauses(
    own: type[Settings],
) -> None:
    class P(Timed):
        id = "P"
        settings: own  # type: ignore[valid-type]  # pyright: ignore[reportInvalidTypeForm]

        @every(setting="poll_seconds")
        async def poll(self) -> None:
            self.note()

    world = World(P)
    async with world.running():
        await world.served()
        await anyio.sleep(12)
        assert near(world.plugin.waits(), 10)
        for poll_seconds, seconds, calls in (("0", 600, (1, 1)), ("-1", 600, (0, 0)), ("30", 155, (2, 5))):
            before = len(world.plugin.times)
            world.agent.stored["poll_seconds"] = poll_seconds
            await world.serving.settings.refresh()
            await anyio.sleep(seconds)
            # The wait that had begun goes on; what is paused looks again after a minute.
            assert calls[0] <= len(world.plugin.times) - before <= calls[1], poll_seconds
        assert near(world.plugin.waits()[-1:], 30)


async def test_a_background_method_runs_while_the_plugin_serves_and_is_cancelled_at_the_drain() -> None:
    class P(Timed):
        id = "P"
        ended = ""

        @background()
        async def watch(self) -> None:
            self.note()
            try:
                await anyio.sleep_forever()
            finally:
                self.ended = world.serving.status.state

    world = World(P)
    async with world.running():
        await world.served()
        await anyio.sleep(3600)
        assert (len(world.plugin.times), world.plugin.ended) == (1, "")
    assert world.plugin.ended == "stopping"


async def test_a_background_method_that_ends_by_itself_is_done() -> None:
    class P(Timed):
        id = "P"

        @background()
        async def prepare(self) -> None:
            self.note()

    world = await run(P, 3600)
    assert len(world.plugin.times) == 1
    assert "degraded" not in world.states()


async def test_a_background_method_that_fails_and_is_not_restarted_degrades_the_plugin_and_it_serves_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class P(Timed):
        id = "P"

        @background()
        async def watch(self) -> None:
            self.note()
            raise ValueError("no")

    world = World(P)
    async with world.running():
        await world.served()
        await anyio.sleep(3600)
        assert (world.serving.status.state, world.serving.status.reason) == (
            "degraded",
            "watch failed and is not restarted",
        )
        await world.reconnected(lambda: world.broker.cut("P"))
        assert world.serving.status.state == "degraded", "a new session mends nothing"
    assert len(world.plugin.times) == 1
    assert "background.failed" in [record.message for record in caplog.records]


@pytest.mark.parametrize("fails", [True, False])
async def test_a_background_method_with_restart_comes_again_after_longer_and_longer_waits(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    class P(Timed):
        id = "P"

        @background(restart=True)
        async def watch(self) -> None:
            self.note()
            if fails:
                raise ValueError("no")

    world = await run(P, 300)
    assert near(world.plugin.waits()[1:9], 1, 2, 4, 8, 16, 32, 60, 60)
    assert ("background.failed" if fails else "background.ended") in [record.message for record in caplog.records]
    assert "degraded" not in world.states()


async def test_after_a_long_run_a_background_method_is_restarted_soon() -> None:
    class P(Timed):
        id = "P"

        @background(restart=True)
        async def watch(self) -> None:
            if self.note() == 5:
                await anyio.sleep(100)

    world = await run(P, 200)
    assert near(world.plugin.waits()[1:7], 1, 2, 4, 8, 101, 2)
