"""The scene `settings` in its short form."""

import pytest

from tests.chaos.edits.counts import counts
from tests.chaos.edits.evidence import Evidence
from tests.chaos.edits.play import play
from tests.chaos.edits.verdict import judge

SEED = "20"
KILLS = 4
TRANSACTIONS = 32


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """The campaign, played once."""
    return play(SEED, KILLS, TRANSACTIONS, brief=True)


def test_no_transaction_is_ever_seen_in_part_nor_mixed_nor_undone(evidence: Evidence) -> None:
    report = judge(evidence)
    assert not report.broken, str(report)


def test_the_campaign_did_what_it_is_about(evidence: Evidence) -> None:
    happened = dict(counts(evidence))
    assert happened["transactions begun"] >= TRANSACTIONS, happened
    assert happened["of them amid a transaction"] == KILLS, happened
    for name in ("snapshots seen by handlers", "edits done", "writes by others", "edits cut by a kill"):
        assert happened[name], happened
