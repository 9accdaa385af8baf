"""What the session promises, whatever happens: against a model; and the mistakes that the model notices."""

import logging
from collections.abc import Generator

import pytest

from .ledger import Broken
from .mutants import MUTANTS, Mutant
from .searching import PATIENCE, search


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    """Nobody reads what hundreds of runs log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("keeps", [True, False], ids=["sessions-kept", "sessions-dropped"])
@pytest.mark.parametrize("journal", [True, False], ids=["journal", "no-journal"])
def test_what_was_promised_is_kept(journal: bool, keeps: bool) -> None:
    search(journal=journal, keeps=keeps)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mistake_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """By programs of the same kind, the first of which the framework passes as it is, in the test above."""
    mutant.mutate(monkeypatch)
    with pytest.raises(Broken):
        search(journal=mutant.journal, keeps=mutant.keeps, examples=PATIENCE, shrink=False)
