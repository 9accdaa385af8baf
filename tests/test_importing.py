"""Importing without the garbage collector."""

import gc
from collections.abc import Generator

import pytest

from kepm_plugin._importing import importing


class Node:
    """Something that the collector keeps an eye on."""


@pytest.fixture(autouse=True)
def as_before() -> Generator[None]:
    """Leave the collector as it was."""
    was = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    if not was:
        gc.disable()


def _generation(thing: object) -> int | None:
    """Return the generation that a thing belongs to; None where no collection looks at it."""
    return next((number for number in range(3) if any(one is thing for one in gc.get_objects(number))), None)


def test_what_was_imported_counts_as_old() -> None:
    with importing():
        assert not gc.isenabled()
        made = Node()
    assert gc.isenabled()
    assert _generation(made) == 2
    assert _generation(Node()) == 0


def test_what_is_frozen_is_not_looked_at_any_more() -> None:
    with importing(frozen=True):
        made = Node()
    assert gc.isenabled()
    assert _generation(made) is None


def test_what_somebody_has_frozen_stays_so() -> None:
    before = Node()
    gc.freeze()
    with importing():
        pass
    assert _generation(before) is None


def test_it_may_be_nested_and_leaves_the_collector_off_where_it_was() -> None:
    with importing():
        with importing():
            made = Node()
        assert not gc.isenabled()
    assert _generation(made) == 2
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


def test_an_error_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
