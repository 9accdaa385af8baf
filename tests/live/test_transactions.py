"""No snapshot mixes two transactions, whatever fails; each guard is shown to be needed."""
# pyright: reportPrivateUsage=false

import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kepm_plugin import Settings
from kepm_plugin.errors import AgentError, SettingsError
from kepm_plugin.live._looking import Looking
from kepm_plugin.live._record import Record
from kepm_plugin.live._transaction import Transactions
from tests.live.model import (
    FILE,
    FIRST,
    GUARDED_FILE,
    INTERVAL,
    KEYS,
    SECRET,
    Agent,
    Guarded,
    Killed,
    Numbers,
    Plugin,
    mixed,
    play,
)

FAULTS = ["", "", "before", "after", "late", "5xx", "theirs", "killed before", "killed after", "late killed"]

Step = tuple[Any, ...]


def steps() -> st.SearchStrategy[list[Step]]:
    """Return programs."""
    number = st.sampled_from([1, 2])
    return st.lists(
        st.one_of(
            st.tuples(st.just("own"), st.lists(st.sampled_from(FAULTS), max_size=5)),
            st.tuples(st.just("theirs"), st.sampled_from(KEYS), st.one_of(number, st.just(-999))),
            st.tuples(st.just("theirs"), st.just("token"), number.map(lambda one: f"{SECRET}{one}")),
            st.tuples(st.just("revert")),
            st.tuples(st.just("arrive")),
            st.tuples(st.just("restart")),
            st.tuples(st.just("wait"), st.sampled_from([0.1, 6.0])),
        ),
        max_size=8,
    )


async def step(plugin: Plugin, number: int, name: str, *given: Any) -> None:
    match name:
        case "own":
            await plugin.own(number, *given[0])
        case "theirs":
            plugin.agent.stored[given[0]] = str(given[1])
        case "revert":
            try:
                await plugin.live.revert()
            except (AgentError, SettingsError):
                pass
            except Killed:
                await plugin.restart()
        case "arrive":
            plugin.agent.arrive()
        case "restart":
            plugin.agent.faults = []
            await plugin.restart()
        case _:
            await anyio.sleep(given[0])


async def quiet(plugin: Plugin) -> None:
    """Let everything arrive, repair what others broke, and wait until nothing can come."""
    plugin.agent.faults = []
    plugin.agent.arrive()
    await plugin.restart()
    await anyio.sleep(2 * INTERVAL)
    values = await plugin.agent.settings("P")
    plugin.agent.stored |= {key: "1" for key in KEYS if int(values[key]) < 0}
    await anyio.sleep(100)


@pytest.mark.parametrize(("kind", "file"), [(Numbers, FILE), (Guarded, GUARDED_FILE)])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps())
def test_snapshots_mix_no_transactions_and_in_the_end_are_what_the_agent_has(
    kind: type[Settings], file: Mapping[str, Any], program: list[Step]
) -> None:
    async def run(plugin: Plugin) -> None:
        for number, one in enumerate(program, FIRST + 1):
            await step(plugin, number, *one)
            assert not mixed(plugin.taken)
        await quiet(plugin)
        assert not mixed(plugin.taken)
        assert plugin.live.current == plugin.live.current.parse(await plugin.agent.settings("P"))
        assert not plugin.open_file.exists()
        assert plugin.troubles[-1] is None

    with tempfile.TemporaryDirectory() as folder:
        play(run, Path(folder), kind, Agent(file))


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "expected", "puts"),
    [
        (["killed before"], FIRST, 1),
        (["killed after"], 101, 3),
        (["", "killed before"], 101, 4),
        (["", "killed after"], 101, 3),
        (["", "", "killed before"], 101, 4),
        (["", "", "killed after"], 101, 3),
        (["", "before", "killed before"], 101, 5),
        (["", "before", "before", "killed before"], FIRST, 5),
        (["", "before", "before", "killed after"], FIRST, 4),
        (["", "", "5xx", "5xx", "", "killed before"], FIRST, 7),
    ],
)
def test_a_kill_in_the_middle_is_finished_or_undone_at_the_next_start(
    tmp_path: Path, faults: list[str], expected: int, puts: int
) -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.own(101, *faults)
        values = await plugin.agent.settings("P")
        assert (set(values.values()), len(plugin.agent.puts())) == ({str(expected)}, puts)
        current = plugin.live.current
        assert {current.a, current.b, current.c} == {expected}
        await anyio.sleep(100)
        assert not plugin.open_file.exists()

    assert not mixed(play(run, tmp_path).taken)


class ArrivingAtTheRevert(Agent):
    """What was given up arrives between a revert and the look at what it has changed."""

    async def revert(self, plugin: str) -> None:
        await super().revert(plugin)
        self.arrive()


def test_what_arrives_late_at_a_revert_is_reverted_too() -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.own(101, "late", "late")
        await plugin.own(102, "", "late", "late")
        await plugin.live.revert()
        assert await plugin.agent.settings("P") == dict.fromkeys(KEYS, str(FIRST))

    assert not mixed(play(run, agent=ArrivingAtTheRevert()).taken)


# --- a secret that arrives while no process is there ----------------------------------------------------------------


async def _secret_given_up(plugin: Plugin) -> None:
    await plugin.own(101, "", "late", "before")
    plugin.agent.arrive()
    await plugin.restart()


async def _secret_of_an_edit_before_the_last(plugin: Plugin) -> None:
    await plugin.own(101, "", "late", "before")
    await plugin.own(102)
    plugin.agent.arrive()
    await plugin.restart()


async def _secret_given_up_by_a_dead_process(plugin: Plugin) -> None:
    await plugin.own(101, "", "late killed")
    plugin.agent.arrive()
    await plugin.restart()


async def _secret_given_up_before_others_wrote(plugin: Plugin) -> None:
    await plugin.own(101, "", "late", "before")
    plugin.agent.stored["c"] = "1"
    await anyio.sleep(3 * INTERVAL)
    plugin.agent.arrive()
    await plugin.restart()
    assert plugin.live.current.c == 1, "what others have set since stays"


async def _secret_that_stays_as_it_is(plugin: Plugin) -> None:
    await plugin.restart()
    await plugin.own(101, "", "late")
    await plugin.edit(a=102, b=102, c=102, token=f"{SECRET}101")
    await plugin.restart()


SECRETS = [
    (_secret_given_up, 101),
    (_secret_of_an_edit_before_the_last, 101),
    (_secret_given_up_by_a_dead_process, 101),
    (_secret_given_up_before_others_wrote, 101),
    (_secret_that_stays_as_it_is, 102),
]


@pytest.mark.parametrize(("run", "number"), SECRETS, ids=[each[0].__name__[1:] for each in SECRETS])
def test_what_belongs_to_a_secret_that_arrives_between_two_processes_is_set_again(
    run: "Run", number: int, tmp_path: Path
) -> None:
    plugin = play(run, tmp_path, Guarded, Agent(GUARDED_FILE))
    assert (plugin.taken[-1].a, plugin.taken[-1].b) == (number, number)
    assert plugin.taken[-1].token == f"{SECRET}101"
    assert SECRET not in "".join(path.read_text() for path in tmp_path.iterdir())


def test_what_cannot_go_with_a_secret_any_more_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.faults = ["", "late", "before"]
        with pytest.raises(AgentError):
            await plugin.edit(a=50, b=50, c=50, token=f"{SECRET}101")
        plugin.agent.arrive()
        plugin.agent.stored["c"] = "-200"
        await plugin.restart()
        current = plugin.live.current
        assert (current.a, current.b, current.c, current.token) == (FIRST, FIRST, -200, f"{SECRET}101")

    play(run, tmp_path, Guarded, Agent(GUARDED_FILE))
    assert [record.__dict__["keys"] for record in caplog.records if record.message == "settings.not_undone"] == [
        ["token"]
    ]


# --- what each guard is for -------------------------------------------------------------------------------------------


async def _kill_after_the_first(plugin: Plugin) -> None:
    await plugin.own(101, "killed after")


async def _kill_after_the_second(plugin: Plugin) -> None:
    await plugin.own(101, "", "killed after")


async def _one_that_fails(plugin: Plugin) -> None:
    await plugin.own(101, "", "before", "before")
    await anyio.sleep(10)


async def _one_that_arrives_late(plugin: Plugin) -> None:
    await plugin.own(101, "", "late", "late")
    plugin.agent.arrive()
    await anyio.sleep(10)


async def _one_that_arrives_late_from_a_dead_process(plugin: Plugin) -> None:
    await plugin.own(101, "late killed")
    plugin.agent.arrive()
    await anyio.sleep(10)


async def _one_that_arrives_late_after_others_wrote(plugin: Plugin) -> None:
    await plugin.own(101, "theirs", "late killed")
    plugin.agent.arrive()
    await anyio.sleep(10)


async def _one_that_is_not_stored(plugin: Plugin) -> None:
    await plugin.own(101, "", "lost")


async def _two_that_belong_together(plugin: Plugin) -> None:
    await anyio.sleep(1)
    for key in KEYS:
        plugin.agent.stored[key] = str(FIRST + 1)
        plugin.live.resume()
        await anyio.sleep(0.2)
    await anyio.sleep(10)
    assert plugin.live.current.c == FIRST + 1


Run = Callable[[Plugin], Coroutine[Any, Any, None]]


def _nothing(*_: object, **__: object) -> None:
    pass


def _no(*_: object) -> bool:
    return False


async def _resolve_nothing(*_: object) -> None:
    pass


async def _settled_at_once(_: object, values: Any) -> Any:
    return values


async def _undo_nothing(self: Any, *_: object) -> dict[str, str]:
    self._record.close()
    values: dict[str, str] = await self._access.values()
    return values


async def _verify_nothing(self: Any, *_: object) -> dict[str, str]:
    values: dict[str, str] = await self._access.values()
    return values


GUARDS: list[tuple[type, str, Any, Run]] = [
    (Record, "save", _nothing, _kill_after_the_first),
    (Looking, "resolve", _resolve_nothing, _kill_after_the_second),
    (Transactions, "_undo", _undo_nothing, _one_that_fails),
    (Record, "late", _no, _one_that_arrives_late),
    (Record, "late", _no, _one_that_arrives_late_from_a_dead_process),
    (Record, "late", _no, _one_that_arrives_late_after_others_wrote),
    (Transactions, "_verified", _verify_nothing, _one_that_is_not_stored),
    (Looking, "settled", _settled_at_once, _two_that_belong_together),
]


@pytest.mark.parametrize(
    ("owner", "name", "mistake", "run"), GUARDS, ids=[f"{guard[1]}-{guard[3].__name__}" for guard in GUARDS]
)
def test_without_one_guard_snapshots_are_mixed_and_with_it_they_are_not(
    owner: type, name: str, mistake: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not mixed(play(run, tmp_path / "right").taken)
    monkeypatch.setattr(owner, name, mistake)
    assert mixed(play(run, tmp_path / "wrong").taken)


@pytest.mark.parametrize(
    ("owner", "name", "mistake", "run", "number"),
    [
        (Transactions, "complete", _resolve_nothing, _secret_given_up, 101),
        (Record, "became", _nothing, _secret_that_stays_as_it_is, 102),
    ],
)
def test_without_one_guard_a_secret_stands_beside_what_does_not_belong_to_it(
    owner: type, name: str, mistake: Any, run: Run, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, mistake)
    assert play(run, tmp_path, Guarded, Agent(GUARDED_FILE)).taken[-1].a != number
