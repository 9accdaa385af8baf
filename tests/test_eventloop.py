from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.eventloop import shared_wait


@given(st.floats(0, 1e7), st.floats(0, 4.9), st.floats(0.25, 60))
def test_waits_of_one_length_end_together(now: float, later: float, most: float) -> None:
    """Whoever begins later within a wait, but for its last moment, ends with it."""
    first = shared_wait(now, most)
    assert 0 < first <= most
    end, begun = now + first, now + later
    if first < most and begun < end - most / 500:
        assert abs(begun + shared_wait(begun, most) - end) < 1e-6


def test_a_timer_that_is_early_does_not_come_twice() -> None:
    assert shared_wait(10.0 - 1e-9, 5.0) == 5.0
    assert shared_wait(10.0, 5.0) == 5.0
    assert shared_wait(9.0, 5.0) == 1.0
