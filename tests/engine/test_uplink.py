"""What the operator sees of the link: transitions on Status, and another client with the plugin's client id."""

from typing import Any

import anyio
import pytest

from kepm_plugin.errors import InstanceError
from tests.engine.test_link import FullWaits
from tests.engine.world import World, fresh

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


@pytest.fixture(autouse=True)
def full_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.link._link.Random", FullWaits)


async def take_over(world: World) -> None:
    """Connect with the plugin's client id for a moment."""
    async with world.broker.connect("P", lambda batch: None):
        await anyio.wait_all_tasks_blocked()
        assert world.serving.status.state == "disconnected"


def last(world: World) -> dict[str, Any]:
    report: dict[str, Any] = world.on("P/Status")[-1]
    return report


@on_mock_clock
async def test_transitions_are_on_status() -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        await world.reconnected(lambda: world.broker.cut("P"))
        world.agent.system["broker.port"] = "9999"
        world.broker.up = False
        world.broker.cut("P")
        await anyio.sleep(1)
        world.broker.up = True
        await world.until(lambda: last(world).get("transitions", {}).get("up") == 3)
    assert last(world)["transitions"] == {
        "connecting": 6,
        "failed": 3,
        "refused": 0,
        "fallenBack": 0,
        "certificateChanged": 0,
        "addressChanged": 1,
        "up": 3,
        "echoMissed": 0,
        "takenOver": 0,
        "lost": 2,
        "resumed": 0,
        "budgetSpent": 0,
    }
    assert world.places[-1] == ("127.0.0.1", 9999)


@on_mock_clock
async def test_a_takeover_is_told_until_a_session_has_held() -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        await take_over(world)
        before = anyio.current_time()
        await world.until(lambda: world.states()[-1] == "degraded", within=10)
        assert anyio.current_time() - before == 5
        assert "another client has connected with this plugin's client id" in last(world)["reason"]
        assert "end that client" in last(world)["reason"]
        await world.until(lambda: world.states()[-1] == "running", within=130)
        assert anyio.current_time() - before >= 120
        assert last(world)["transitions"]["takenOver"] == 1


@on_mock_clock
async def test_an_orphan_that_was_taken_over_does_not_wait_for_its_turn() -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        await take_over(world)
        await anyio.sleep(0.5)
        world.launcher_gone = True
        with pytest.raises(InstanceError, match="another client has its client id"):
            raise (await world.ended(within=4)).error or AssertionError
    assert len(world.places) == 1


@on_mock_clock
async def test_a_sign_of_life_is_given_while_the_link_is_up() -> None:
    signs: list[float] = []
    world = World(fresh(), alive=lambda: signs.append(anyio.current_time()))
    async with world.running():
        await world.served()
        await anyio.sleep(61)
        assert len(signs) == 13
        world.broker.up = False
        world.broker.cut("P")
        await anyio.sleep(60)
        assert len(signs) == 13


@on_mock_clock
async def test_a_copy_that_stands_by_presses_the_one_that_handles() -> None:
    pressed: list[float] = []
    world = World(fresh(), press=lambda: pressed.append(anyio.current_time()))
    world.lock_free = False
    async with world.running():
        await anyio.sleep(10)
        assert len(pressed) > 100
        world.lock_free = True
        await world.served()
        count = len(pressed)
        await anyio.sleep(10)
        assert len(pressed) == count
