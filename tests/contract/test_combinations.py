"""Each agent without the contract file that fits it, and with it."""

from pathlib import Path
from typing import Final

import pytest

from tests.contract.combinations import COMBINATIONS, STEPS, Combination
from tests.contract.table import page, read_page, row
from tests.devagent.conftest import Stage

PAGE: Final = (Path(__file__).parents[2] / "docs" / "contract.md").read_text("utf-8")
BY_HAND: Final = "make it anew with `python -m tests.contract`"


@pytest.fixture
def stage(request: pytest.FixtureRequest, combination: Combination) -> Stage:
    """The agent with the combination's broker."""
    found: Stage = request.getfixturevalue(combination.broker)
    return found


@pytest.mark.parametrize("combination", COMBINATIONS, ids=[one.name for one in COMBINATIONS])
async def test_with_its_file_everything_works_and_without_it_the_item_is_named(
    stage: Stage, combination: Combination, tmp_path: Path
) -> None:
    made, without, with_it = await row(stage, combination, tmp_path)
    failed = {step: said for step, said in without.items() if said}
    assert tuple(failed) == combination.fails, failed
    for name in combination.names:
        assert any(name in said for said in failed.values()), failed
    for step, said in failed.items():
        assert step == "log" or "(docs/contract.md)" in said, "only the log is silent"

    assert list(with_it) == list(STEPS)
    refused = {step: said for step, said in with_it.items() if said}
    assert tuple(refused) == combination.denied, refused
    assert all("was not tried" in said and "put_tier" in said for said in refused.values())

    assert read_page(PAGE)[combination.name] == made, BY_HAND


def test_the_page_has_these_combinations_and_no_others() -> None:
    assert list(read_page(PAGE)) == [one.name for one in COMBINATIONS]
    assert page(list(read_page(PAGE).values())) in PAGE, BY_HAND
