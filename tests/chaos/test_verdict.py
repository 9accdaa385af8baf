"""The verdict on ledgers, without any process."""

from collections import Counter

import pytest

from tests.chaos.black_box import Phase
from tests.chaos.evidence import Evidence
from tests.chaos.killing import Intent, Kill
from tests.chaos.ledger import Handled, Produced
from tests.chaos.rig import Gate
from tests.chaos.table import table, violations
from tests.chaos.verdict import Verdict, judge

KILL = Kill(
    number=2,
    intent=Intent(delay=0.1),
    phase=Phase.IN_HANDLER,
    counts=dict.fromkeys(Phase, 0) | {Phase.IN_HANDLER: 1},
    acknowledged=2,
    sessions=1,
    missed=False,
)


def evidence(
    *,
    durable: bool = True,
    taken: dict[int, list[int]] | None = None,
    begun: dict[int, list[int]] | None = None,
    ended: tuple[int, ...] = (1, 2),
    answered: tuple[int, ...] = (2,),
    given_up: tuple[int, ...] = (),
    left: int = 0,
) -> Evidence:
    """An event and a command, of which the plugin has acknowledged the first; one kill, in the handler of the first."""
    handled = Handled(ended=Counter(ended))
    handled.taken.update(taken or {1: [2], 2: [2]})
    handled.begun.update(begun or {1: [2, 3], 2: [3]})
    topics = {1: "Chaos/Events/plain", 2: "Chaos/Commands/work"}
    produced = Produced(digests={1: "a", 2: "b"}, topics=topics, acknowledged={1, 2}, answered=Counter(answered))
    return Evidence(
        durable=durable,
        journal=True,
        produced=produced,
        handled=handled,
        gate=Gate(total=2, acknowledged=Counter(["a"])),
        kills=[KILL],
        given_up=Counter(given_up),
        acknowledged=2,
        left=left,
    )


def judged(given: Evidence) -> Verdict:
    return judge("here", given, 1.0)


def test_a_message_that_was_handled_again_after_a_kill_in_its_handler_breaks_nothing() -> None:
    verdict = judged(evidence())
    assert verdict.kept
    assert (verdict.handled_again, verdict.handled_again_most) == (1, 1)
    assert violations([verdict]) == ""


@pytest.mark.parametrize(
    ("given", "promise"),
    [
        (evidence(ended=(2,)), "1 messages that the broker acknowledged were not handled"),
        (evidence(durable=False, ended=(2,)), "1 messages that the plugin acknowledged were not handled"),
        (evidence(answered=()), "1 commands were not answered"),
        (evidence(ended=(1,), given_up=(2,)), "1 messages were given up without so many interruptions"),
        (evidence(left=3), "3 messages were left in the journal"),
        (evidence(taken={1: [2, 3], 2: [2]}), "1 messages came again, 0 were unacknowledged at kills"),
        (evidence(begun={1: [2, 3], 2: [2, 3]}), "2 messages were handled again, 1 were running at kills"),
    ],
)
def test_a_broken_promise_is_said(given: Evidence, promise: str) -> None:
    verdict = judged(given)
    assert [broken.promise for broken in verdict.broken] == [promise]


def test_what_the_plugin_did_not_acknowledge_is_nobody_s_where_the_session_goes_with_the_connection() -> None:
    assert judged(evidence(durable=False, ended=(1,), answered=())).kept


def test_a_message_is_named_with_the_runs_that_had_it_and_what_these_were_killed_in() -> None:
    story = "read in run 2 (in the handler); begun in run 2 (in the handler), 3 (not killed); ended 0 times"
    assert f"1, Chaos/Events/plain: {story}" in violations([judged(evidence(ended=(2,)))])


def test_the_table_has_a_column_for_each_campaign() -> None:
    lines = table([judged(evidence()), judged(evidence(left=1))]).splitlines()
    assert lines[0].split() == ["here", "here"]
    assert [line.split()[-2:] for line in lines if line.strip().startswith("in the handler")] == [["1", "1"]]
