"""The verdict of the scene `settings` on made-up notes: each promise broken once, and what breaks none."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tests.chaos.edits import verdict
from tests.chaos.edits.aims import Aim, plan
from tests.chaos.edits.evidence import Evidence, Held, Kill, Written
from tests.chaos.edits.notes import (
    CANCELLED,
    DONE,
    FOREIGN,
    SECRET,
    Kind,
    Notebook,
    Reader,
    Seen,
    Snapshot,
    Transaction,
)
from tests.chaos.edits.notes import read_notes as read
from tests.chaos.edits.verdict import broken, judge

FILE = Snapshot(x=0, y=0, z=0, trail=0, token=0, low=0, high=1_000)
THEIRS = FOREIGN + 1


def whole(number: int, base: Snapshot = FILE) -> Snapshot:
    """Return what a transaction makes of a snapshot."""
    stamped = base._replace(x=number, y=number, z=number, trail=number)
    return stamped if number % 2 else stamped._replace(token=number)


def seen(at: int, snapshot: Snapshot, *, by: Reader = "call", run: int = 1, call: int = 0) -> Seen:
    """Return a look; without a number of its own each call looks once."""
    return Seen(at=at, run=run, by=by, snapshot=snapshot, call=call or at)


def edit(
    number: int,
    begun: int,
    ended: int | None = None,
    outcome: str | None = DONE,
    *,
    kind: Kind = "edit",
    run: int = 1,
    after: Snapshot | None = None,
) -> Transaction:
    """Return a transaction; without an end a kill has cut it."""
    outcome = None if ended is None else outcome
    return Transaction(number=number, kind=kind, run=run, begun=begun, ended=ended, outcome=outcome, after=after)


def evidence(*notes: Seen | Transaction | Written | Held | Kill, end: Snapshot = FILE) -> Evidence:
    """Put notes together."""
    return Evidence(
        seen=[each for each in notes if isinstance(each, Seen)],
        transactions={each.number: each for each in notes if isinstance(each, Transaction)},
        others=[each for each in notes if isinstance(each, Written)],
        held=[each for each in notes if isinstance(each, Held)],
        kills=[each for each in notes if isinstance(each, Kill)],
        mine=end,
        theirs=end,
    )


def others(key: str, begun: int, ended: int, stamp: int = THEIRS) -> Written:
    """Return a write by others, or without a key a revert."""
    return Written(key=key, stamp=stamp if key else 0, begun=begun, ended=ended)


def kill(at: int, run: int = 1) -> Kill:
    """Return a kill amid a transaction."""
    return Kill(run=run, aim=Aim.WRITTEN.value, at=at, hit=True, amid=True)


ONE, TWO = edit(1, 10, 20, after=whole(1)), edit(2, 30, 40, after=whole(2))
FAILED = edit(3, 50, 60, "AgentRefused")
CUT = edit(3, 50)
GIVEN_UP = edit(4, 50, 60, "AgentUnreachable")

KEPT = {
    "one after the other": evidence(ONE, TWO, seen(25, whole(1)), seen(35, whole(1)), seen(45, whole(2))),
    "seen before it is reported": evidence(ONE, TWO, seen(39, whole(2))),
    "a token stays where the next does not write it": evidence(TWO, edit(3, 50, 60), seen(65, whole(3, whole(2)))),
    "others write over it": evidence(ONE, others("y", 25, 27), seen(26, whole(1)._replace(y=THEIRS))),
    "others write while it does": evidence(
        edit(1, 10, 20, after=whole(1)._replace(y=THEIRS)), others("y", 5, 12), seen(25, whole(1)._replace(y=THEIRS))
    ),
    "others revert in the middle": evidence(ONE, others("", 12, 13), seen(25, whole(1)._replace(x=0, y=0))),
    "ours reverts": evidence(ONE, edit(2, 30, 40, kind="revert", after=FILE), seen(45, FILE)),
    "a revert that was cut": evidence(ONE, edit(2, 30, kind="revert"), kill(35), seen(45, FILE, run=2)),
    "it fails and is not seen": evidence(ONE, TWO, FAILED, seen(55, whole(2)), seen(65, whole(2))),
    "it is refused": evidence(
        edit(1, 10, 20, "SettingsError", kind="breaks a rule"), Held(begun=1, ended=2, values={})
    ),
    "cancelled and not there": evidence(TWO, edit(3, 50, 60, CANCELLED), seen(65, whole(2))),
    "cancelled and there": evidence(TWO, edit(3, 50, 60, CANCELLED), seen(65, whole(3, whole(2)))),
    "cut and finished": evidence(TWO, CUT, kill(55), seen(70, whole(3, whole(2)), by="up", run=2)),
    "cut and taken back": evidence(TWO, CUT, kill(55), seen(70, whole(2), by="up", run=2)),
    "cut, finished, and others wrote": evidence(
        TWO, CUT, kill(55), others("z", 60, 61), seen(70, whole(3, whole(2))._replace(z=THEIRS), by="up", run=2)
    ),
    "it failed, and its secret arrived after a kill": evidence(TWO, GIVEN_UP, kill(65), seen(70, whole(4), run=2)),
    "the agent failed at a start": replace(evidence(), ended_by_itself=["code 67", "code 70"]),
    "two writers at a time": evidence(edit(1, 10, 40, after=whole(2)), edit(2, 15, 30, after=whole(2))),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_may_happen_breaks_no_promise(name: str) -> None:
    assert list(broken(KEPT[name])) == []


BROKEN = {
    verdict.MIXED: evidence(ONE, TWO, seen(35, whole(1)._replace(x=2))),
    verdict.TORN: evidence(ONE, seen(15, whole(1)._replace(z=0))),
    verdict.INVALID: evidence(seen(5, FILE._replace(low=7, high=3))),
    verdict.UNKNOWN: evidence(ONE, seen(25, whole(9))),
    verdict.TWO_IN_A_CALL: evidence(ONE, TWO, seen(35, whole(1), call=4), seen(45, whole(2), call=4)),
    verdict.SEEN_FAILED: evidence(FAILED, seen(65, whole(3))),
    verdict.SEEN_FAILING: evidence(FAILED, seen(55, whole(3))),
    verdict.WENT_BACK: evidence(ONE, TWO, seen(45, whole(1))),
    verdict.NEVER_WAS: evidence(ONE, edit(2, 30, 40, after=whole(1))),
    verdict.NOT_REFUSED: evidence(edit(1, 10, 20, kind="author fails", after=whole(1))),
    verdict.WRITTEN_ANYWAY: evidence(
        edit(6, 10, 20, "SettingsError", kind="breaks a rule"),
        Held(begun=14, ended=15, values={"token": f"{SECRET}6", "low": "5", "trail": "[1000001,1000001]"}),
    ),
    verdict.STRANGE: evidence(edit(1, 10, 20, "unexpected KeyError")),
    verdict.ENDED: replace(evidence(), ended_by_itself=["code 66"]),
    verdict.APART: replace(evidence(), theirs=FILE._replace(low=1)),
    verdict.TOO_FEW: evidence(*(edit(n, 10 * n, 10 * n + 5, "SettingsConflict") for n in range(1, verdict.MANY + 1))),
    verdict.LEFT: replace(evidence(), intents=["data/Editing/intent.json"]),
    verdict.LEAKED: replace(evidence(), leaks=["data/Editing/last-good.json"]),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_a_broken_promise_is_found_and_no_other(promise: str) -> None:
    assert [found for found, _ in broken(BROKEN[promise])] == [promise]
    report = judge(BROKEN[promise])
    assert [line.split(": ")[0] for line in report.broken] == [promise]


def test_a_half_of_a_cut_transaction_is_found_at_the_next_start() -> None:
    half = evidence(TWO, CUT, kill(55), seen(70, whole(2)._replace(x=3, y=3, z=3), by="up", run=2))
    assert [found for found, _ in broken(half)] == [verdict.MIXED, verdict.HALF]


def test_every_promise_is_broken_by_one_of_these() -> None:
    assert {*BROKEN, verdict.HALF} == set(verdict.PROMISES)


@pytest.mark.parametrize(
    "given",
    [
        evidence(TWO, edit(4, 50, 60), seen(65, whole(4)._replace(token=2))),
        evidence(TWO, edit(3, 50, 60), edit(4, 61, 70), seen(65, whole(3)._replace(token=4))),
        evidence(TWO, edit(3, 40, 45), GIVEN_UP, kill(65), seen(70, whole(3)._replace(token=4, x=THEIRS), run=2)),
    ],
)
def test_a_secret_of_another_transaction_is_a_mixture(given: Evidence) -> None:
    assert [found for found, _ in broken(given)] == [verdict.MIXED]


@pytest.mark.parametrize(
    "late",
    [
        seen(65, whole(4)),
        seen(70, whole(4)._replace(token=2), run=2),
    ],
)
def test_a_transaction_that_had_failed_is_there_only_with_its_secret_and_after_a_kill(late: Seen) -> None:
    assert verdict.SEEN_FAILED in [found for found, _ in broken(evidence(TWO, GIVEN_UP, kill(65), late))]


def test_a_value_of_others_from_before_a_transaction_is_no_excuse() -> None:
    early = evidence(ONE, others("y", 2, 4), seen(25, whole(1)._replace(y=THEIRS)))
    assert [found for found, _ in broken(early)] == [verdict.TORN]


def test_a_revert_after_which_something_of_ours_is_there_never_was() -> None:
    kept = evidence(ONE, edit(2, 30, 40, kind="revert", after=whole(1)))
    assert [found for found, _ in broken(kept)] == [verdict.NEVER_WAS]


def test_a_plugin_that_does_not_answer_in_the_end_differs() -> None:
    assert [found for found, _ in broken(replace(evidence(), mine=None, theirs=None))] == [verdict.APART]


def test_the_table_counts_what_became_of_transactions() -> None:
    shown = {row.name: row.figures["count"] for row in judge(KEPT["cut and finished"]).rows}
    assert shown["transactions begun"] == 2
    assert shown["edits done"] == 1
    assert (shown["edits cut by a kill"], shown["of them there at the next start"]) == (1, 1)
    assert (shown["kill -9"], shown["of them amid a transaction"]) == (1, 1)
    assert shown["killed at a PUT that was carried out"] == 1


def test_notes_of_several_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    first, second = (Notebook(tmp_path / "notes", run) for run in (1, 2))
    first.saw("up", FILE)
    first.begun(1, "edit")
    second.saw("call", whole(1), 7)
    second.begun(2, "hasty")
    second.ended(2, DONE, whole(2))
    notes = read(tmp_path / "notes")
    assert [(each.by, each.run, each.call, each.snapshot) for each in notes.seen] == [
        ("up", 1, 0, FILE),
        ("call", 2, 7, whole(1)),
        ("writer", 2, 0, whole(2)),
    ]
    assert [(each.number, each.kind, each.run, each.outcome) for each in notes.transactions.values()] == [
        (1, "edit", 1, None),
        (2, "hasty", 2, DONE),
    ]
    assert notes.transactions[1].begun < notes.transactions[2].begun


def test_the_same_seed_plans_the_same_kills_and_all_aims_come() -> None:
    planned, again = (list(islice(plan(Random("7"), 10.0), 12)) for _ in range(2))  # noqa: S311  no secret
    assert planned == again
    assert {intent.aim for intent in planned[:6]} == set(Aim)
