"""The verdict on a campaign: which promises hold, by what everybody noted. No I/O.

A snapshot may hold values of others in place of ours, where others wrote or reverted after ours had begun; who saw it,
and what became of the transactions that are in it, decides the rest.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from kepm_plugin.errors import AgentRefused, AgentUnreachable, BadAgentAnswer
from tests.chaos.edits.counts import counts
from tests.chaos.edits.evidence import Evidence, Excuses, completed, cut, missing, there
from tests.chaos.edits.notes import (
    DONE,
    EVERY_OTHER,
    UNEXPECTED,
    Seen,
    Snapshot,
    Transaction,
    is_own,
    written_by,
)
from tests.chaos.scenes.report import Report, Row

SHOWN: Final = 3
"""Cases of one broken promise that are named."""

MIXED: Final = "snapshots that mix two of our transactions"
TORN: Final = "snapshots with a part of one of our transactions"
INVALID: Final = "snapshots that break validate"
UNKNOWN: Final = "snapshots with a number that nobody wrote"
TWO_IN_A_CALL: Final = "calls of handlers that saw two snapshots"
SEEN_FAILED: Final = "snapshots with a transaction that had reported failure"
SEEN_FAILING: Final = "snapshots with a transaction that reported failure later"
WENT_BACK: Final = "calls that saw an older transaction than one that was done before them"
NEVER_WAS: Final = "transactions that reported success and were not there"
NOT_REFUSED: Final = "edits that broke a rule, or failed in the author's code, and were not refused"
WRITTEN_ANYWAY: Final = "refused edits of which something was written"
HALF: Final = "cut transactions of which a part was there at the next start"
STRANGE: Final = "errors that are none of the framework's"
ENDED: Final = "processes that ended by themselves"
APART: Final = "final states that differ from the agent's"
LEFT: Final = "intent files that were left"
TOO_FEW: Final = "campaigns in which hardly any edit was done, so that they show nothing"
LEAKED: Final = "places where a secret can be read"

PROMISES: Final = (
    *(MIXED, TORN, INVALID, UNKNOWN, TWO_IN_A_CALL, SEEN_FAILED, SEEN_FAILING, WENT_BACK),
    *(NEVER_WAS, NOT_REFUSED, WRITTEN_ANYWAY, HALF, STRANGE, ENDED, APART, LEFT, TOO_FEW, LEAKED),
)
"""Of each of these there must be none."""

AT_FAULT: Final = tuple(f"code {error.exit_code}" for error in (AgentUnreachable, AgentRefused, BadAgentAnswer))
"""How a process may end by itself: the agent's API failed while it started."""

ENOUGH: Final = 0.05
"""Part of all transactions that must be edits which were done,"""

MANY: Final = 20
"""where there are so many."""

REFUSED: Final = ("breaks a rule", "author fails")


def judge(given: Evidence) -> Report:
    """Return the table of counts, with a row for each promise."""
    report = Report("settings")
    report.rows.extend(Row(name, {"count": count}) for name, count in counts(given))
    cases = defaultdict[str, list[str]](list)
    for promise, case in broken(given):
        cases[promise].append(case)
    for promise in PROMISES:
        row = Row(promise, {"count": len(cases[promise])})
        row.promise(not cases[promise], f"{len(cases[promise])}, as {'; '.join(cases[promise][:SHOWN])}")
        report.rows.append(row)
    return report


def broken(given: Evidence) -> Iterator[tuple[str, str]]:
    """Yield each case in which a promise was broken, with words about it."""
    excuses = Excuses(given.others, given.transactions.values())
    for seen in given.seen:
        yield from _of_snapshot(seen, given, excuses)
    yield from _of_calls(given)
    for one in given.transactions.values():
        yield from _of_transaction(one, excuses, given)
    yield from _of_cut(given, excuses)
    yield from ((ENDED, how) for how in given.ended_by_itself if how not in AT_FAULT)
    if given.mine is None or given.mine != given.theirs:
        yield APART, f"plugin {given.mine}, agent {given.theirs}"
    done, begun = sum(1 for _ in _done_edits(given)), len(given.transactions)
    if begun >= MANY and done < ENOUGH * begun:
        yield TOO_FEW, f"{done} of {begun}"
    yield from ((LEFT, path) for path in given.intents)
    yield from ((LEAKED, where) for where in given.leaks)


# --- snapshots --------------------------------------------------------------------------------------------------------


def _of_snapshot(seen: Seen, given: Evidence, excuses: Excuses) -> Iterator[tuple[str, str]]:
    snapshot, where = seen.snapshot, f"{tuple(seen.snapshot)} seen by {seen.by} in run {seen.run} at {seen.at}"
    if snapshot.low > snapshot.high:
        yield INVALID, where
    numbers = snapshot.own | frozenset(filter(is_own, [snapshot.token]))
    strangers = {number for number in numbers if number not in given.transactions}
    if strangers or min(snapshot) < 0:
        yield UNKNOWN, where
        return
    if len(snapshot.own) > 1 or _token_of_another(snapshot):
        yield MIXED, where
    elif len(snapshot.own) == 1:
        (number,) = snapshot.own
        if gone := missing(given.transactions[number], snapshot, seen.at, excuses):
            yield TORN, f"{gone} of {number} missing: {where}"
    for number in sorted(numbers):
        one = given.transactions[number]
        if one.failed and one.ended is not None and not completed(one, seen):
            yield SEEN_FAILED if seen.at > one.ended else SEEN_FAILING, f"{number} ({one.outcome}): {where}"


def _token_of_another(snapshot: Snapshot) -> bool:
    """Tell whether the token is of a transaction that cannot stand beside the one of the other stamps.

    It can be of an earlier one, where the later one does not write it: who writes a token writes all stamps.
    """
    if not is_own(snapshot.token) or len(snapshot.own) != 1:
        return False
    (number,) = snapshot.own
    return snapshot.token != number if EVERY_OTHER in written_by(number) else snapshot.token > number


# --- calls of handlers ------------------------------------------------------------------------------------------------


def _of_calls(given: Evidence) -> Iterator[tuple[str, str]]:
    calls = defaultdict[tuple[int, int], list[Seen]](list)
    for seen in given.seen:
        if seen.by == "call":
            calls[seen.run, seen.call].append(seen)
    done = sorted((ended, one.begun, one.number) for ended, one in _done_edits(given))
    for (run, call), looks in calls.items():
        if len(different := {seen.snapshot for seen in looks}) > 1:
            yield TWO_IN_A_CALL, f"call {call} of run {run}: {[tuple(each) for each in different]}"
        first = looks[0]
        if len(first.snapshot.own) == 1:
            (number,) = first.snapshot.own
            old = given.transactions.get(number)
            over = _over(old, given) if old else None
            later = [new for ended, begun, new in done if over is not None and begun > over and ended < first.at]
            if later:
                yield WENT_BACK, f"call {call} of run {run} saw {number}, {later[-1]} was done before it"


def _done_edits(given: Evidence) -> Iterator[tuple[int, Transaction]]:
    for one in given.transactions.values():
        if one.kind != "revert" and one.outcome == DONE and one.ended is not None:
            yield one.ended, one


def _over(one: Transaction, given: Evidence) -> int | None:
    """Return when a transaction was over; of one that was cut or cancelled, when its process was."""
    if one.outcome == DONE:
        return one.ended
    return next((kill.at for kill in given.kills if kill.run == one.run), None)


# --- transactions -----------------------------------------------------------------------------------------------------


def _of_transaction(one: Transaction, excuses: Excuses, given: Evidence) -> Iterator[tuple[str, str]]:
    words = f"{one.number} ({one.kind})"
    if one.outcome is not None and one.outcome.startswith(UNEXPECTED):
        yield STRANGE, f"{words}: {one.outcome.removeprefix(UNEXPECTED)}"
    if one.kind in REFUSED:
        if one.outcome == DONE:
            yield NOT_REFUSED, words
        elif any(one.number in held.own for held in given.held):
            yield WRITTEN_ANYWAY, words
    elif one.outcome == DONE and one.after is not None and one.ended is not None:
        if one.kind == "revert":
            wrong = [f"{number} is there" for number in one.after.own if not _by_another_of_ours(one, number, given)]
        else:
            gone = missing(one, one.after, one.ended, excuses)
            wrong = [f"{key} is not" for key in gone if not _by_another_of_ours(one, getattr(one.after, key), given)]
        if wrong:
            yield NEVER_WAS, f"{words}: {wrong} in {tuple(one.after)}"


def _by_another_of_ours(one: Transaction, number: int, given: Evidence) -> bool:
    """Tell whether a number is that of a transaction which was not over before this one began."""
    other = given.transactions.get(number)
    over = None if other is None else _over(other, given)
    return other is not None and (over is None or over >= one.begun)


def _of_cut(given: Evidence, excuses: Excuses) -> Iterator[tuple[str, str]]:
    for one, up in cut(given):
        if up is not None and 0 < there(one, up, excuses) < len(written_by(one.number)):
            yield HALF, f"{one.number}: {tuple(up.snapshot)} in run {up.run}"
