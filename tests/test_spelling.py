"""Which known name a misspelt one may mean."""

from difflib import get_close_matches

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.spelling import nearest

NAMES = st.text("abcdeé_", max_size=8)


@given(NAMES, st.lists(NAMES, max_size=6), st.sampled_from([0.0, 0.4, 0.6, 0.75, 0.87, 1.0]))
def test_it_is_what_difflib_finds(name: str, known: list[str], cutoff: float) -> None:
    assert [nearest(name, known, cutoff=cutoff)] == (get_close_matches(name, known, n=1, cutoff=cutoff) or [""])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("timeuot", "timeout"), ("retry", "retries"), ("Timeout", "timeout"), ("colour", ""), ("", "")],
)
def test_a_slip_is_told_from_another_word(name: str, meant: str) -> None:
    assert nearest(name, ("timeout", "retries", "order_by")) == meant
