"""The link's state machine against a scripted session: connecting, proving, losing, restoring, giving up."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio.testing

from kepm_plugin.errors import AgentUnreachable, BrokerRefused, LinkLost, UsageError
from kepm_plugin.link import SUSPENDED, Deliver, Ending, History, Link, LinkOptions, Session
from kepm_plugin.message import Publication, Received
from kepm_plugin.plugin import Gap

ECHO = "P/Link"

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
"""For what takes minutes: only that clock can skip them."""


class FullWaits(Random):
    """Draws the upper bound each time, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append((a, b))
        return b


class Scripted:
    """One session; what the broker does is up to the test."""

    version = "5"
    certificate = ""
    in_flight_maximum = 20

    def __init__(
        self,
        *,
        session_present: bool = False,
        early: Sequence[bytes] = (),
        refusal: Exception | None = None,
        echoes: bool = True,
    ) -> None:
        self.session_present, self.early, self.refusal, self.echoes = session_present, early, refusal, echoes
        self.reading_since = -math.inf
        self.ending: Ending = "broken"
        self.deliver: Deliver
        self.subscribed: list[tuple[list[str], int]] = []
        self.published: list[Publication] = []
        self._reason = ""
        self._gone = anyio.Event()

    def pause_reading(self) -> None:
        self.reading_since, self.echoes = math.inf, False

    def resume_reading(self) -> None:
        self.reading_since, self.echoes = anyio.current_time(), True

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        await anyio.lowlevel.checkpoint()
        self.subscribed.append((list(filters), qos))
        if self.refusal is not None:
            raise self.refusal

    async def unsubscribe(self, filters: Sequence[str]) -> None: ...

    def acknowledge(self, mids: Sequence[int]) -> None: ...

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        if self._gone.is_set():
            raise LinkLost(self._reason)
        self.published.append(publication)
        if self.echoes:
            self.deliver([Received(publication.topic, publication.payload)])

    async def lost(self) -> str:
        await self._gone.wait()
        return self._reason

    def cut(self, reason: str = "cut", ending: Ending = "broken") -> None:
        self._reason, self.ending = reason, ending
        self._gone.set()


class World:
    """Connector and observer; keeps what happened in order."""

    def __init__(self, *plan: Scripted | Exception, options: dict[str, Any] | None = None) -> None:
        self.plan: list[Scripted | Exception] = list(plan)
        self.events: list[str] = []
        self.gaps: list[Gap | None] = []
        self.random = FullWaits()
        self.on_up: Callable[[], None] = lambda: None
        self.on_beat: Callable[[bool], None] = lambda up: None
        self._changed = anyio.Event()
        given: dict[str, Any] = {"filters": lambda: ["P/Commands/+"]} | (options or {})
        self.history = History()
        self.asleep = 0.0
        self.link = Link(
            self.connect, self, LinkOptions(**given), self.history, random=self.random, asleep=lambda: self.asleep
        )

    @asynccontextmanager
    async def connect(self, deliver: Deliver) -> AsyncGenerator[Session]:
        step = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if isinstance(step, Exception):
            self._note("refused")
            raise step
        step.deliver = deliver
        deliver([Received("P/Commands/x", payload) for payload in step.early])
        yield step

    def received(self, batch: Sequence[Received], session: Session) -> None:
        for each in batch:
            if each.topic == ECHO:
                self.link.echo(each)
            else:
                self._note(f"received {each.payload.decode()}")

    async def up(self, session: Session, gap: Gap | None) -> None:
        self.gaps.append(gap)
        self._note("up")
        self.on_up()

    async def down(self, reason: str) -> None:
        self._note(f"down: {reason}")

    def proof(self, proven: bool) -> None:
        self._note("proven" if proven else "unproven")

    def taken_over(self, reason: str | None) -> None:
        self._note(f"taken over: {reason}" if reason else "not taken over any more")

    def beat(self, up: bool) -> None:
        self.on_beat(up)

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, *events: str, within: float = 5) -> None:
        """Return when these are the last events, in this order."""
        with anyio.fail_after(within):
            while self.events[-len(events) :] != list(events):
                await self._changed.wait()

    async def until_up(self, count: int, within: float = 5) -> None:
        """Return when there have been so many sessions."""
        with anyio.fail_after(within):
            while self.events.count("up") < count:
                await self._changed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.link.run, name="link")
            yield
            tasks.cancel_scope.cancel()


NOBODY = AgentUnreachable("nobody listens")


# --- connecting ----------------------------------------------------


async def test_the_plugin_is_up_when_its_subscriptions_are_confirmed() -> None:
    session = Scripted()
    world = World(session, options={"qos": 2})
    async with world.running():
        await world.until("up")
        assert session.subscribed == [(["P/Commands/+"], 2)]
        assert world.gaps == [None]


async def test_without_anything_to_subscribe_the_plugin_is_up_all_the_same() -> None:
    session = Scripted()
    world = World(session, options={"filters": list})
    async with world.running():
        await world.until("up")
    assert session.subscribed == []


async def test_failed_attempts_wait_longer_and_longer_up_to_a_bound_and_with_full_jitter() -> None:
    world = World(*[NOBODY] * 8, Scripted(), options={"first_delay": 0.0005, "max_delay": 0.008})
    async with world.running():
        await world.until("refused", "down: nobody listens", "up")
    assert world.random.bounds == [(0, bound) for bound in (0.0005, 0.001, 0.002, 0.004, 0.008, 0.008, 0.008, 0.008)]
    assert world.gaps == [None], "nothing was lost yet"


async def test_the_waits_begin_anew_after_a_session_that_held() -> None:
    first, second = Scripted(), Scripted()
    world = World(NOBODY, NOBODY, first, second, options={"first_delay": 0.001, "max_delay": 0.002})
    async with world.running():
        await world.until("up")
        await anyio.sleep(0.003)  # longer than the longest wait; on the mock clock it takes no time
        first.cut()
        await world.until("down: cut", "up")
    assert world.random.bounds == [(0, 0.001), (0, 0.002), (0, 0.001)]


async def test_sessions_that_end_as_soon_as_they_began_do_not_make_us_hurry() -> None:
    sessions = [Scripted() for _ in range(4)]
    world = World(*sessions, Scripted(), options={"first_delay": 0.0001, "max_delay": 0.8, "share": 0.0})
    taken = iter(sessions)
    world.on_up = lambda: next(taken, Scripted()).cut("taken over")
    async with world.running():
        await world.until(*["up", "down: taken over"] * 4, "up")
    assert [bound for _, bound in world.random.bounds] == [0.0001, 0.0002, 0.0004, 0.0008]


async def test_a_refused_subscription_is_tried_again() -> None:
    refused = Scripted(refusal=BrokerRefused("SUBACK says no", code=0x87))
    world = World(refused, Scripted(), options={"first_delay": 0.001})
    async with world.running():
        await world.until("down: SUBACK says no", "up")
    assert len(refused.subscribed) == 1


async def test_what_trying_again_does_not_mend_ends_the_run() -> None:
    world = World(UsageError("the CA bundle cannot be used"))
    with anyio.fail_after(5), pytest.raises(UsageError):
        await world.link.run()
    assert world.events == ["refused"]


async def test_messages_that_arrive_before_the_session_is_handed_over_are_not_lost() -> None:
    session = Scripted(session_present=True, early=[b"1", b"2"])
    world = World(session)
    world.on_up = lambda: session.deliver([Received("P/Commands/x", b"3")])
    async with world.running():
        await world.until("up", "received 1", "received 2", "received 3")
        session.deliver([Received("P/Commands/x", b"4")])
        await world.until("received 4")


# --- losing and restoring ----------------------------------------------------


async def test_a_gap_says_why_and_for_how_long_and_whether_the_broker_kept_the_session() -> None:
    first = Scripted()
    world = World(
        first, NOBODY, Scripted(session_present=True), options={"first_delay": 0.001, "filters": lambda: ["a", "b"]}
    )
    async with world.running():
        await world.until("up")
        first.cut("the broker was killed")
        await world.until("down: the broker was killed", "refused", "down: nobody listens", "up")
    gap = world.gaps[1]
    assert gap is not None
    assert (gap.reason, gap.session_present, gap.dropped) == ("the broker was killed", True, 0)
    assert gap.seconds >= sum(bound for _, bound in world.random.bounds)


@on_mock_clock
async def test_a_link_that_cannot_be_restored_within_the_budget_ends_the_run() -> None:
    first = Scripted()
    world = World(first, NOBODY, options={"budget": 600.0})
    world.on_up = first.cut
    told = r"within 600 s \(nobody listens\); the process ends so that the agent restarts it"
    with pytest.raises(LinkLost, match=told):
        await world.link.run()
    assert 600 <= anyio.current_time() < 601


@on_mock_clock
async def test_each_loss_has_the_whole_budget() -> None:
    sessions = [Scripted() for _ in range(3)]
    attempts: list[Scripted | Exception] = [NOBODY] * 40  # about 80 s
    plan = [step for session in sessions for step in [*attempts, session]]
    world = World(*plan, options={"budget": 100.0})
    async with world.running():
        for session in sessions:
            await world.until("down: nobody listens", "up", within=100)
            session.cut()


@on_mock_clock
async def test_a_sleep_of_the_machine_during_a_wait_costs_nothing_of_the_budget(clock: trio.testing.MockClock) -> None:
    world = World(Scripted(), NOBODY, options={"budget": 60.0})
    session = world.plan[0]
    assert isinstance(session, Scripted)
    async with world.running():
        await world.until("up")
        session.cut()
        await anyio.sleep(50)
        clock.jump(3600)
        await anyio.sleep(50)  # more than was left before
        await world.until("refused", "down: nobody listens")
        world.plan = [Scripted()]
        await world.until("up")
    gap = world.gaps[-1]
    assert gap is not None
    assert gap.reason == SUSPENDED


@on_mock_clock
async def test_a_sleep_during_an_attempt_costs_nothing_and_makes_us_hurry(clock: trio.testing.MockClock) -> None:
    asked, go_on = anyio.Event(), anyio.Event()

    class Slow(Scripted):
        async def subscribe(self, filters: Sequence[str], qos: int) -> None:
            asked.set()
            await go_on.wait()
            raise LinkLost("no SUBACK")

    world = World(*[NOBODY] * 5, Slow(), Scripted(), options={"budget": 60.0})
    async with world.running():
        await asked.wait()
        clock.jump(3600)
        go_on.set()
        await world.until("down: no SUBACK", "up")
    assert [bound for _, bound in world.random.bounds][-2:] == [0.8, 0.05]


@pytest.mark.parametrize("seconds_later", [0, 4])
@on_mock_clock
async def test_a_session_lost_by_a_sleep_makes_a_gap_that_says_so(
    clock: trio.testing.MockClock, seconds_later: float
) -> None:
    """The broker drops a client that was silent for too long; whether that shows at once is chance."""
    first = Scripted()
    world = World(first, Scripted())
    async with world.running():
        await world.until("up")
        clock.jump(120)
        if seconds_later:
            await anyio.sleep(seconds_later)
        first.cut("the broker ended the connection")
        await world.until("down: the broker ended the connection", "up")
    gap = world.gaps[-1]
    assert gap is not None
    assert gap.reason == SUSPENDED


@on_mock_clock
async def test_a_loss_long_after_a_sleep_is_just_a_loss(clock: trio.testing.MockClock) -> None:
    first = Scripted()
    world = World(first, Scripted())
    async with world.running():
        await world.until("up")
        clock.jump(120)
        await anyio.sleep(60)
        first.cut("killed")
        await world.until("down: killed", "up")
    gap = world.gaps[-1]
    assert gap is not None
    assert gap.reason == "killed"


# --- the echo ----------------------------------------------------


def echoing(*plan: Scripted | Exception, **options: Any) -> World:
    return World(*plan, options={"echo_topic": ECHO} | options)


async def test_the_link_is_proven_by_an_echo_right_after_the_connect() -> None:
    session = Scripted()
    world = echoing(session)
    async with world.running():
        await world.until("up", "proven")
    [echo] = session.published
    assert (echo.topic, echo.qos, echo.retain) == (ECHO, 0, False)


async def test_without_an_echo_topic_nothing_is_sent_and_nothing_is_claimed() -> None:
    session = Scripted()
    world = World(session)
    async with world.running():
        await world.until("up")
        await anyio.wait_all_tasks_blocked()
    assert (session.published, world.events) == ([], ["up"])


@on_mock_clock
async def test_an_echo_is_sent_only_after_quiet() -> None:
    session = Scripted()
    world = echoing(session)
    async with world.running():
        await world.until("up", "proven")
        for _ in range(10):
            await anyio.sleep(9)
            session.deliver([Received("P/Commands/x", b"busy")])
        assert len(session.published) == 1
        await anyio.sleep(35)
        assert len(session.published) == 1 + 3
    assert world.events[:2] == ["up", "proven"]
    assert "proven" not in world.events[2:], "it is said once"


@on_mock_clock
async def test_an_echo_that_is_missed_once_the_link_was_proven_is_a_lost_link() -> None:
    first = Scripted()
    world = echoing(first, Scripted())
    async with world.running():
        await world.until("up", "proven")
        first.echoes = False
        # 15 s is promised for a half-open link, connecting and subscribing included.
        await world.until("down: the echo did not come back", "up", within=14.5)
    assert world.events[2:] == ["down: the echo did not come back", "up"]
    gap = world.gaps[-1]
    assert gap is not None
    assert gap.reason == "the echo did not come back"


@on_mock_clock
async def test_an_echo_that_never_came_is_said_once_and_the_link_stays() -> None:
    session = Scripted(echoes=False)
    world = echoing(session, budget=60.0)
    async with world.running():
        await anyio.sleep(3600)
        assert world.events == ["up", "unproven"]
        assert 3600 / 15 - 2 <= len(session.published) <= 3600 / 10, "each waits for its answer, then for quiet"
        session.echoes = True
        await anyio.sleep(20)
        assert world.events == ["up", "unproven", "proven"]


@on_mock_clock
async def test_an_echo_that_is_behind_other_messages_is_not_missed() -> None:
    session = Scripted()
    world = echoing(session)
    async with world.running():
        await world.until("up", "proven")
        session.echoes = False
        await anyio.sleep(12)  # the echo is on its way
        session.deliver([Received("P/Commands/x", b"first in the queue")])
        await anyio.sleep(5)
        session.echoes = True
        await anyio.sleep(60)
    assert world.events == ["up", "proven", "received first in the queue"]


@pytest.mark.parametrize("seconds", [5, 8, 30, 600])
@on_mock_clock
async def test_a_clock_that_is_late_is_forgiven_and_another_echo_is_sent_at_once(
    clock: trio.testing.MockClock, seconds: float
) -> None:
    session = Scripted()
    world = echoing(session)
    async with world.running():
        await world.until("up", "proven")
        session.echoes = False
        await anyio.sleep(11)
        sent = len(session.published)
        clock.jump(seconds)  # while that echo is awaited, for five seconds in all
        session.echoes = True
        await anyio.sleep(1)
        assert len(session.published) == sent + 1
        await anyio.sleep(60)
    assert world.events == ["up", "proven"]


@on_mock_clock
async def test_what_is_not_read_is_no_missed_echo() -> None:
    session = Scripted()
    world = echoing(session)
    async with world.running():
        await world.until("up", "proven")
        session.pause_reading()
        await anyio.sleep(3600)
        assert 3600 / 15 - 2 <= len(session.published) <= 3600 / 10, "it is no reason to hurry"
        session.echoes = True
        session.reading_since = anyio.current_time()
        await anyio.sleep(60)
    assert world.events == ["up", "proven"]


@on_mock_clock
async def test_an_echo_right_after_a_pause_may_be_behind_much_else() -> None:
    first = Scripted()
    world = echoing(first, Scripted())
    async with world.running():
        await world.until("up", "proven")
        first.pause_reading()
        await anyio.sleep(9)
        first.resume_reading()
        first.echoes = False
        await anyio.sleep(10)  # the echo was due a second after the pause, and its time is over
        assert world.events == ["up", "proven"]
        await world.until("down: the echo did not come back", "up", within=20)


@on_mock_clock
async def test_a_pause_right_at_the_start_leaves_open_whether_the_link_carries_messages() -> None:
    session = Scripted(echoes=False)
    world = echoing(session)
    world.on_up = session.pause_reading
    async with world.running():
        await anyio.sleep(60)
        session.resume_reading()
        await world.until("up", "proven", within=20)


class Remote(Scripted):
    """Writes when the loop turns next, to a broker that answers by itself."""

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        self.published.append(publication)
        loop = asyncio.get_running_loop()
        echo = [Received(publication.topic, publication.payload)]
        loop.call_soon(loop.call_later, 0.02, self.deliver, echo)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("seconds", [0.35, 0.7])
async def test_a_loop_that_was_blocked_for_longer_than_an_echo_may_take_has_missed_none(seconds: float) -> None:
    session = Remote()
    world = echoing(session, quiet=0.05, echo_timeout=0.3, tick=0.3)
    async with world.running():
        await world.until("up", "proven")
        with anyio.fail_after(5):
            for count in range(2, 5):
                while len(session.published) < count:
                    await anyio.lowlevel.checkpoint()
                time.sleep(seconds)  # noqa: ASYNC251  The block is what is tested; that echo is not written yet.
            while len(session.published) < 7:
                await anyio.lowlevel.checkpoint()
    assert world.events == ["up", "proven"]


@on_mock_clock
async def test_what_others_publish_on_the_echos_topic_proves_nothing() -> None:
    session = Scripted(echoes=False)
    world = echoing(session)
    async with world.running():
        await world.until("up")
        for payload in (b"", b"forged"):
            session.deliver([Received(ECHO, payload)])
        await anyio.sleep(6)
        assert world.events == ["up", "unproven"]


async def test_an_echo_from_before_the_first_one_was_sent_proves_nothing() -> None:
    world = echoing(Scripted(echoes=False, early=[]))
    world.link.echo(Received(ECHO, b""))
    async with world.running():
        await world.until("up")
        await anyio.wait_all_tasks_blocked()
    assert world.events == ["up"]


async def test_a_session_that_is_gone_when_the_echo_is_due_is_a_loss_like_any_other() -> None:
    first = Scripted()
    world = echoing(first, Scripted(), first_delay=0.001)
    world.on_up = lambda: first.cut("gone")
    async with world.running():
        await world.until("up", "down: gone", "up", "proven")
