"""The model of a fleet: nobody is forgotten, nothing is done for nothing, and what the link's waits are chosen for."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fleet.model import END, Costs, Outcome, Place, simulate
from tests.fleet.report import LINKS, choice
from tests.fleet.strategies import STRATEGIES

PAGE = Path(__file__).parents[2] / "docs" / "fleet.md"
BEFORE = "full jitter, 0.8 s"
LABOURING = Place(costs=replace(Costs(), broker=0.02), at_once=True)
"""An agent that takes all connections at once, and needs for 500 of them twice as long as one of them waits."""

places = st.builds(
    Place,
    costs=st.builds(Costs, connect=st.floats(0, 0.02), broker=st.floats(0, 0.02), refused=st.floats(0.0001, 0.01)),
    processors=st.floats(0.5, 8),
    backlog=st.integers(1, 200),
    at_once=st.booleans(),
)
worlds = st.tuples(st.integers(1, 40), st.sampled_from(list(STRATEGIES)), places, st.floats(0, 20), st.integers(0, 9))


def play(plugins: int, strategy: str, place: Place, outage: float, seed: int = 1) -> Outcome:
    return simulate(plugins, STRATEGIES[strategy], place, outage=outage, seed=seed)


@given(worlds)
def test_nobody_is_forgotten_and_nobody_served_twice(world: tuple[int, str, Place, float, int]) -> None:
    found = play(*world)
    assert len(found.served) == found.plugins  # so few are served by any agent, however they wait
    assert found.served == sorted(found.served)
    assert 0 <= found.served[0] <= found.last < END
    assert len(found.attempts) >= found.plugins
    assert found.last >= found.median


@given(worlds)
def test_the_same_seed_gives_the_same_outcome(world: tuple[int, str, Place, float, int]) -> None:
    assert play(*world) == play(*world)


@given(worlds)
def test_nobody_is_served_before_the_work_is_done(world: tuple[int, str, Place, float, int]) -> None:
    plugins, _, place, _, _ = world
    found = play(*world)
    # A plugin's own work is done by one processor at a time, the last one's connection after all others'.
    slack = 1e-6
    assert found.last + slack >= plugins * place.costs.broker
    assert found.last + slack >= plugins * place.costs.connect / max(1.0, place.processors)
    assert found.work + slack >= plugins * (place.costs.connect + place.costs.broker)


def test_one_by_one_and_all_at_once_end_at_the_same_time_and_serve_the_first_at_another() -> None:
    one_by_one, at_once = (
        play(50, "no jitter, 0.8 s", Place(costs=replace(Costs(), connect=0.0, broker=0.02), at_once=turns), 0.0)
        for turns in (False, True)
    )
    assert one_by_one.last == pytest.approx(50 * 0.02)
    assert at_once.last == pytest.approx(50 * 0.02)
    assert one_by_one.served[0] == pytest.approx(0.02)
    assert at_once.served[0] == pytest.approx(50 * 0.02)


def test_a_queue_that_is_full_takes_nobody_and_tcp_tries_again() -> None:
    place = Place(costs=replace(Costs(), connect=0.0, broker=0.1), backlog=4)
    found = play(10, "no jitter, 0.8 s", place, 0.0)
    # One is being served and four wait; the others are back after a second.
    assert [round(at, 1) for at in found.served] == [0.1, 0.2, 0.3, 0.4, 0.5, 1.1, 1.2, 1.3, 1.4, 1.5]
    assert (found.given_up, found.refused) == (0, 0)


def test_an_attempt_that_takes_too_long_is_given_up_and_its_work_was_in_vain() -> None:
    place = Place(costs=replace(Costs(), connect=0.0, after=0.0, broker=3.0))
    found = play(2, LINKS, place, 0.0)
    assert found.served[0] == pytest.approx(3.0)
    assert found.given_up == 1
    assert 8.0 < found.last < 12.0  # given up after 5 s, and the broker was at its first attempt until the sixth
    assert found.work == pytest.approx(9.0)


def test_without_an_outage_nobody_is_refused() -> None:
    assert play(20, BEFORE, Place(), 0.0).refused == 0


@pytest.mark.parametrize(
    ("plugins", "outage", "last"), [(10, 3.0, 0.85), (100, 3.0, 0.95), (10, 60.0, 3.1), (100, 60.0, 3.1)]
)
def test_a_fleet_is_back_within_a_second_and_after_a_long_outage_within_three(
    plugins: int, outage: float, last: float
) -> None:
    assert max(play(plugins, LINKS, Place(), outage, seed).last for seed in range(3)) <= last


def test_in_a_long_outage_the_links_waits_take_less_than_half_of_the_processors() -> None:
    before, now = (play(100, strategy, Place(), 60.0).refused for strategy in (BEFORE, LINKS))
    assert now < before / 2


def test_an_agent_that_labours_is_overwhelmed_for_ever_unless_slow_attempts_make_them_wait_longer() -> None:
    assert play(500, BEFORE, LABOURING, 3.0).last == inf
    found = play(500, LINKS, LABOURING, 3.0)
    assert found.last < END / 2
    assert found.given_up < 10 * 500


def test_the_table_has_a_row_for_each_strategy_and_a_column_for_each_size() -> None:
    text = choice(Costs(), sizes=(1, 5))
    assert all(text.count(f"  {name} ") == 3 for name in STRATEGIES)
    heads = [line.split() for line in text.splitlines() if "last of" in line]
    assert [head[head.index("last") :][:5] for head in heads] == [["last", "of", "1", "5", "median"]] * 3


def test_the_page_has_what_the_model_says_of_the_links_waits() -> None:
    found = [line.split() for line in choice(Costs(), strategies={LINKS: STRATEGIES[LINKS]}).splitlines()]
    page = [line.split() for line in PAGE.read_text("utf-8").splitlines()]
    assert [line for line in page if line[:2] == LINKS.split()[:2]] == [line for line in found if line[:1] == ["both"]]
