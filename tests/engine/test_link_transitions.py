"""Each transition of the link: counted, said once, and what comes of a client that has our id."""

import logging
from collections.abc import Iterator

import anyio
import pytest

from kepm_plugin.errors import AgentUnreachable, BrokerRefused, LinkLost
from kepm_plugin.link import SUSPENDED
from tests.engine.test_link import NOBODY, Scripted, World, echoing, on_mock_clock


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the link says."""
    with caplog.at_level(logging.INFO, "kepm_plugin.link"):
        yield caplog


def said(lines: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what was said: event and reason."""
    return [(one.message.removeprefix("link."), getattr(one, "reason", "")) for one in lines.records]


def counted(world: World) -> dict[str, int]:
    """Return the transitions that were made at all."""
    return {name: count for name, count in world.history.report().items() if count}


async def test_the_way_from_start_to_loss_and_back_is_said_step_by_step(lines: pytest.LogCaptureFixture) -> None:
    first = Scripted()
    denied = BrokerRefused("CONNACK says no", code=0x87)
    world = World(NOBODY, denied, first, Scripted(session_present=True), options={"first_delay": 0.001})
    async with world.running():
        await world.until("down: CONNACK says no", "up")
        first.cut("the broker was killed")
        await world.until("down: the broker was killed", "up")
    assert said(lines) == [
        ("connecting", "start"),
        ("failed", "nobody listens"),
        ("refused", "CONNACK says no"),
        ("up", ""),
        ("lost", "the broker was killed"),
        ("connecting", "the broker was killed"),
        ("up", ""),
    ]
    assert counted(world) == {"connecting": 4, "failed": 1, "refused": 1, "up": 2, "lost": 1}
    up, again = [one.__dict__ for one in lines.records if one.message == "link.up"]
    assert (up["mqtt"], up["sessionPresent"], up["attempts"]) == ("5", False, 3)
    assert (again["sessionPresent"], again["attempts"]) == (True, 1)


@on_mock_clock
async def test_ten_minutes_of_attempts_say_each_reason_once(lines: pytest.LogCaptureFixture) -> None:
    reasons = [LinkLost(f"reason {number % 3}") for number in range(100)]
    world = World(*reasons, NOBODY, options={"budget": 600.0})
    with pytest.raises(LinkLost):
        await world.link.run()
    assert said(lines) == [
        ("connecting", "start"),
        *(("failed", f"reason {number}") for number in range(3)),
        ("failed", "nobody listens"),
        ("budget_spent", "nobody listens"),
    ]
    counts = counted(world)
    assert counts["failed"] == counts["connecting"] > 200
    assert counts["budgetSpent"] == 1


@on_mock_clock
async def test_a_broker_that_says_something_else_each_time_is_no_flood(lines: pytest.LogCaptureFixture) -> None:
    world = World(*[LinkLost(f"reason {number}") for number in range(400)], options={"budget": 60.0})
    with pytest.raises(LinkLost):
        await world.link.run()
    assert len(said(lines)) == 1 + 10 + 1


@on_mock_clock
async def test_sessions_that_break_again_and_again_are_said_once_until_one_has_held(
    lines: pytest.LogCaptureFixture,
) -> None:
    sessions = [Scripted() for _ in range(101)]
    world = World(*sessions, Scripted())
    async with world.running():
        for session in sessions[:-1]:
            await world.until("up")
            session.cut("reset")
            await world.until("down: reset")
        await world.until("up")
        await anyio.sleep(20)
        world.events.clear()
        sessions[-1].cut("reset")
        await world.until("down: reset", "up")
    assert said(lines) == [
        ("connecting", "start"),
        ("up", ""),
        ("lost", "reset"),
        ("connecting", "reset"),
        ("up", ""),
        ("held", ""),
        ("lost", "reset"),
        ("connecting", "reset"),
        ("up", ""),
    ]
    assert counted(world)["lost"] == 101


@on_mock_clock
async def test_a_missed_echo_is_said_and_so_is_another_certificate(lines: pytest.LogCaptureFixture) -> None:
    first, second = Scripted(), Scripted()
    first.certificate, second.certificate = "a" * 64, "b" * 64
    world = echoing(first, second)
    async with world.running():
        await world.until("up", "proven")
        first.echoes = False
        await world.until("down: the echo did not come back", "up", within=20)
    assert (
        said(lines)[2:]
        == [
            ("held", ""),
            ("echo_missed", "no echo within 4 s, and nothing else"),
            ("lost", "the echo did not come back"),
            ("connecting", "the echo did not come back"),
            ("certificate_changed", f"{'a' * 16} became {'b' * 16}"),
            ("up", ""),
        ][1:]
    )


async def test_falling_back_to_the_older_version_is_said_once(lines: pytest.LogCaptureFixture) -> None:
    old, older = Scripted(), Scripted()
    old.version = older.version = "3.1.1"
    world = World(old, older)
    async with world.running():
        await world.until("up")
        old.cut()
        await world.until("down: cut", "up")
    assert counted(world)["fallenBack"] == 1
    assert said(lines)[1] == ("fallen_back", "the broker refused MQTT 5")


# --- taken over -----------------------------------------------------------------------------------------------------

TOLD = "taken over: the broker says that another client has connected with this plugin's client id"
GUESSED = (
    "taken over: the broker ended 8 connections, each within 10 s, and could be reached at once again: "
    "another client probably uses this plugin's client id"
)


@on_mock_clock
async def test_a_takeover_that_the_broker_tells_of_is_not_fought(lines: pytest.LogCaptureFixture) -> None:
    sessions = [Scripted() for _ in range(7)]
    world = World(*sessions, Scripted())
    beats: list[bool] = []
    world.on_beat = beats.append
    async with world.running():
        for session in sessions:
            await world.until("up", within=70)
            beats.clear()
            session.cut("0x8E", "taken over")
            await world.until(TOLD, "down: 0x8E")
        await world.until("up", within=70)
        assert beats.count(False) == 60, "a look each second whether we are still wanted"
    assert [bound for _, bound in world.random.bounds] == [5, 10, 20, 40, 60, 60, 60]
    assert counted(world)["takenOver"] == 7
    assert [event for event, _ in said(lines)].count("taken_over") == 1


@on_mock_clock
async def test_a_takeover_is_over_when_a_session_has_held() -> None:
    first, second, third = Scripted(), Scripted(), Scripted()
    world = World(first, second, third, Scripted())
    async with world.running():
        await world.until("up")
        first.cut("0x8E", "taken over")
        await world.until(TOLD, "down: 0x8E", "up", within=10)
        await anyio.sleep(115)
        assert world.events[-1] == "up"
        await world.until("not taken over any more", within=10)
        second.cut()
        await world.until("down: cut", "up")
        third.cut("0x8E", "taken over")
        await world.until("up", TOLD, "down: 0x8E", "up", within=10)
    assert [bound for _, bound in world.random.bounds] == [5, 0.05, 5]


@on_mock_clock
async def test_sessions_that_the_broker_closes_soon_one_after_the_other_are_a_takeover() -> None:
    lived = (0, 1, 9, 0, 3, 3, 3, 0, 50, 1)
    sessions = [Scripted() for _ in lived]
    world = World(*sessions, Scripted())
    async with world.running():
        for number, (session, seconds) in enumerate(zip(sessions, lived, strict=True)):
            await world.until_up(number + 1, within=20)
            await anyio.sleep(seconds)
            session.cut("closed", "closed")
        await world.until_up(len(sessions) + 1, within=30)
    # A takeover once it is one: a session that lived for 50 s has not outlived the other client's patience either.
    assert [event for event in world.events if event not in ("up", "down: closed")] == [GUESSED] * 3
    assert [bound for _, bound in world.random.bounds] == [0] * 7 + [5, 10, 20]


@pytest.mark.parametrize("between", ["nobody listens", "a session held", "a reset"])
@on_mock_clock
async def test_a_broker_that_restarts_often_is_no_takeover(between: str) -> None:
    steps = 20
    sessions = [Scripted() for _ in range(steps)]
    failures = [NOBODY] if between == "nobody listens" else []
    plan: list[Scripted | Exception] = []
    for session in sessions:
        plan += [session, *failures]
    world = World(*plan, Scripted())
    async with world.running():
        for number, session in enumerate(sessions):
            await world.until_up(number + 1)
            await anyio.sleep(11 if between == "a session held" else 0)
            session.cut("gone", "reset" if between == "a reset" else "closed")
        await world.until_up(steps + 1)
    assert max(bound for _, bound in world.random.bounds) <= 0.8


@on_mock_clock
async def test_a_broker_that_closes_before_connack_in_between_is_there() -> None:
    """NATS does that to every second of two clients that take each other's session over."""
    early = AgentUnreachable("did not answer CONNECT")
    early.__cause__ = LinkLost("closed")
    sessions = [Scripted() for _ in range(8)]
    plan: list[Scripted | Exception] = []
    for session in sessions:
        plan += [early, session]
    world = World(*plan, Scripted())
    async with world.running():
        for number, session in enumerate(sessions):
            await world.until_up(number + 1)
            session.cut("closed", "closed")
        await world.until(GUESSED, "down: closed")


@on_mock_clock
async def test_many_resets_are_a_takeover_too_in_the_end() -> None:
    sessions = [Scripted() for _ in range(24)]
    world = World(*sessions, Scripted())
    async with world.running():
        for session in sessions:
            await world.until("up")
            session.cut("reset", "reset")
            await world.until("down: reset")
        assert world.events[-2].startswith("taken over: the broker ended 24 connections")
    assert max(bound for _, bound in world.random.bounds[:23]) <= 0.8


@on_mock_clock
async def test_a_session_that_is_taken_over_before_it_is_subscribed_counts(lines: pytest.LogCaptureFixture) -> None:
    early = Scripted(refusal=LinkLost("0x8E"))
    early.ending = "taken over"
    world = World(early, Scripted(), options={"budget": 4.0})
    async with world.running():
        await world.until(TOLD, "down: 0x8E", "up", within=10)
    assert said(lines)[:3] == [("connecting", "start"), ("failed", "0x8E"), ("taken_over", TOLD[12:])]


# --- the budget, and sleep --------------------------------------------------------------------------------------------


@on_mock_clock
async def test_asking_where_the_broker_is_costs_of_the_budget() -> None:
    class Asking(World):
        async def down(self, reason: str) -> None:
            await anyio.sleep(1)
            await super().down(reason)

    world = Asking(NOBODY, options={"budget": 60.0})
    with pytest.raises(LinkLost):
        await world.link.run()
    assert 60 <= anyio.current_time() < 62


@on_mock_clock
async def test_a_suspend_in_which_the_loops_clock_stands_still_is_a_resume(lines: pytest.LogCaptureFixture) -> None:
    world = echoing(Scripted(), NOBODY, budget=60.0)
    first = world.plan[0]
    assert isinstance(first, Scripted)
    async with world.running():
        await world.until("up", "proven")
        await anyio.sleep(1)
        world.asleep += 3600
        await anyio.sleep(5)
        assert len(first.published) == 2, "it is looked at once whether the link still carries messages"
        first.cut("silent for too long")
        await anyio.sleep(50)
        world.asleep += 3600
        await anyio.sleep(50)  # more than was left of the budget
        world.plan = [Scripted()]
        await world.until("up")
    gap = world.gaps[-1]
    assert gap is not None
    assert gap.reason == SUSPENDED
    assert 3700 <= gap.seconds < 3702
    assert next(one for one in said(lines) if one[0] == "resumed") == ("resumed", "about 3605 s had passed unseen")
    assert counted(world)["resumed"] == 2
