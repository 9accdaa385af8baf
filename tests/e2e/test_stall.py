"""A handler that blocks the event loop is named and keeps the connection; others go on. Longer ones: `stall_long`."""

from pathlib import Path

from tests.e2e.stall_long import measure, staller


def test_a_blocking_handler_is_named_and_the_connection_survives(tmp_path: Path, engine: str) -> None:
    with staller(tmp_path, engine) as agent:
        spun = measure(agent, "loop", 1.0)
        held = measure(agent, "held", 1.6)
    for found in (spun, held):
        assert found.survived
        assert found.others == 3
        assert found.logged > found.seconds - 0.01, "rounded"
