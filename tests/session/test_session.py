"""What the session promises, whatever happens: against a model."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import SessionMachine


def test_what_was_promised_is_kept() -> None:
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
