"""What happened in a campaign, in numbers. No I/O."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.edits.evidence import Evidence, Excuses, completed, cut, there
from tests.chaos.edits.notes import CANCELLED, DONE, written_by


def counts(given: Evidence) -> Iterator[tuple[str, int]]:
    """Yield what happened, in numbers."""
    excuses = Excuses(given.others, given.transactions.values())
    readers = Counter(seen.by for seen in given.seen)
    calls = {(seen.run, seen.call) for seen in given.seen if seen.by == "call"}
    yield "snapshots seen by handlers", readers["call"]
    yield "in so many calls", len(calls)
    yield "snapshots seen by on_settings_changed", readers["told"]
    yield "snapshots seen by writers and at starts", readers["writer"] + readers["up"]
    yield "different snapshots", len({seen.snapshot for seen in given.seen})
    yield "commands answered", given.asked
    yield "transactions begun", len(given.transactions)
    edits = [one for one in given.transactions.values() if one.kind != "revert"]
    yield "edits done", sum(one.outcome == DONE for one in edits)
    yield (
        "reverts done",
        sum(one.outcome == DONE for one in given.transactions.values()) - sum(one.outcome == DONE for one in edits),
    )
    reported = Counter(one.outcome for one in given.transactions.values() if one.failed)
    for outcome, count in sorted(reported.items(), key=str):
        yield f"reported {outcome}", count
    yield "cancelled by a handler's timeout", sum(one.outcome == CANCELLED for one in given.transactions.values())
    finished, gone = 0, 0
    interrupted = list(cut(given))
    for one, up in interrupted:
        keys = 0 if up is None else there(one, up, excuses)
        finished, gone = finished + (keys == len(written_by(one.number))), gone + (keys == 0)
    yield "edits cut by a kill", len(interrupted)
    yield "of them there at the next start", finished
    yield "of them not there at the next start", gone
    revived = {one.number for one in edits if one.failed and any(completed(one, seen) for seen in given.seen)}
    yield "edits that had failed, and were finished as their secret arrived after a kill", len(revived)
    yield "kill -9", len(given.kills)
    yield "of them amid a transaction", sum(kill.amid for kill in given.kills)
    for aim, count in sorted(Counter(kill.aim for kill in given.kills if kill.hit).items()):
        yield f"killed at {aim}", count
    yield "kills that missed their aim", sum(not kill.hit for kill in given.kills)
    yield "starts that failed with the agent", len(given.ended_by_itself)
    yield "writes by others", sum(bool(each.key) for each in given.others)
    yield "reverts by others", sum(not each.key for each in given.others)
    yield "states of the agent that were witnessed", len(given.held)
    for name, count in given.faults.items():
        yield f"fault: {name}", count
