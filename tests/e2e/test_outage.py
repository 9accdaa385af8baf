"""What a plugin publishes while the broker is gone, and it is killed; at length in `tests.chaos.outage`."""

from pathlib import Path

from tests.chaos.outage import outage


def test_what_is_published_while_the_broker_is_gone_arrives_in_order_whatever_is_killed(
    tmp_path: Path, engine: str
) -> None:
    found = outage(tmp_path, broker=engine, seconds=1.0, events=300)
    assert found.faults() == []
    assert len(found.kills) == 2
    assert found.kills[0][1] < found.kills[0][0], "it was killed while events waited"
