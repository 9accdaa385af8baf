"""The verdict on a campaign: figures, and the promises that were broken, with what replays them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.black_box import Phase
from tests.chaos.evidence import Evidence
from tests.chaos.killing import Kill

THREADED = "Chaos/Events/thread"

SHOWN = 20
"""Messages of one broken promise that are named."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One promise that was not kept."""

    promise: str
    messages: list[str] = field(default_factory=list[str])
    """What is known of each: in which runs it was read and begun, and what those were doing when they were killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One campaign in figures."""

    scenario: str
    journal: bool
    kills: int
    phases: dict[str, int]
    sent: int
    acknowledged: int
    """Of what was sent, by the broker."""
    acknowledged_by_plugin: int
    handled: int
    given_up: int
    """Dead letters: the process ended again and again while their handlers had them."""
    unhandled: int
    commands: int
    unanswered: int
    received_again: int
    received_again_most: int | None
    """What was unacknowledged at a kill; without a journal all that waits is."""
    handled_again: int
    handled_again_most: int
    """What was running, or returned and not committed (without a journal: not acknowledged), at a kill."""
    missed_aims: int
    lost_sessions: int
    """Sessions that ended without a kill."""
    seconds: float
    log: list[dict[str, Any]]
    """Each kill."""
    broken: list[Broken]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return asdict(self)


def judge(scenario: str, evidence: Evidence, seconds: float) -> Verdict:
    """Compare the ledgers."""
    handled, produced = evidence.handled, evidence.produced
    begun = {number: len(runs) for number, runs in handled.begun.items()}
    taken = {number: len(runs) for number, runs in handled.taken.items()}
    # What is received again is in the journal twice; without one it may have been received only.
    reasons = taken if evidence.journal else dict.fromkeys(begun, 1)
    in_kills = Counter[Phase]()
    for kill in evidence.kills:
        in_kills.update(kill.counts)
    on_the_way = max(0, evidence.acknowledged - evidence.gate.total)
    unacknowledged = in_kills[Phase.BEFORE_COMMIT] + in_kills[Phase.TO_ACKNOWLEDGEMENT] + on_the_way
    running = in_kills[Phase.IN_HANDLER] + in_kills[Phase.TO_DONE]
    phases = Counter(kill.phase.value for kill in evidence.kills)
    verdict = Verdict(
        scenario=scenario,
        journal=evidence.journal,
        kills=len(evidence.kills),
        phases={phase.value: phases[phase.value] for phase in Phase},
        sent=len(produced.digests),
        acknowledged=len(produced.acknowledged),
        acknowledged_by_plugin=len(evidence.acknowledged_by_plugin()),
        handled=len(handled.ended),
        given_up=len(evidence.given_up),
        unhandled=len(evidence.unhandled()),
        commands=len(produced.commands & evidence.owed()),
        unanswered=len(evidence.unanswered()),
        received_again=sum(count - 1 for count in taken.values()),
        received_again_most=unacknowledged if evidence.journal else None,
        handled_again=sum(max(0, count - reasons.get(number, 1)) for number, count in begun.items()),
        handled_again_most=running if evidence.journal else running + on_the_way,
        missed_aims=sum(kill.missed for kill in evidence.kills),
        lost_sessions=sum(max(0, kill.sessions - 1) for kill in evidence.kills),
        seconds=round(seconds, 1),
        log=[_told(kill) for kill in evidence.kills],
        broken=[],
    )
    verdict.broken.extend(_broken(verdict, evidence))
    return verdict


def _broken(verdict: Verdict, evidence: Evidence) -> Iterable[Broken]:
    who = "broker" if evidence.durable else "plugin"
    begun, taken = evidence.handled.begun, evidence.handled.taken
    if lost := evidence.unhandled():
        yield Broken(f"{len(lost)} messages that the {who} acknowledged were not handled", _named(evidence, lost))
    if evidence.journal and (silent := evidence.unanswered()):
        yield Broken(f"{len(silent)} commands were not answered", _named(evidence, silent))
    if rash := {number for number in evidence.given_up if len(begun[number]) < _cuts(evidence, number)}:
        yield Broken(f"{len(rash)} messages were given up without so many interruptions", _named(evidence, rash))
    if evidence.left:
        yield Broken(f"{evidence.left} messages were left in the journal")
    if verdict.received_again_most is not None and verdict.received_again > verdict.received_again_most:
        yield Broken(
            f"{verdict.received_again} messages came again, {verdict.received_again_most} were unacknowledged at kills",
            _named(evidence, {number for number, runs in taken.items() if len(runs) > 1}),
        )
    if verdict.handled_again > verdict.handled_again_most:
        yield Broken(
            f"{verdict.handled_again} messages were handled again, {verdict.handled_again_most} were running at kills",
            _named(evidence, {number for number, runs in begun.items() if len(runs) > 1}),
        )


def _told(kill: Kill) -> dict[str, Any]:
    return {
        "run": kill.number,
        "aim": None if kill.intent.aim is None else f"{kill.intent.aim.value}, {kill.intent.moment.value}",
        "nth": kill.intent.nth,
        "phase": kill.phase.value,
        "in progress": {phase.value: count for phase, count in kill.counts.items() if count},
    }


def _cuts(evidence: Evidence, number: int) -> int:
    """Return how many begun calls of its handler a message that was given up must have had.

    Three deliveries. The first counts as begun for all that a run reads, and another may be counted before its thread
    has begun.
    """
    return 1 if evidence.produced.topics[number] == THREADED else 2


def _named(evidence: Evidence, numbers: Iterable[int]) -> list[str]:
    kills = {kill.number: kill for kill in evidence.kills}

    def killed(runs: Iterable[int]) -> str:
        told = [f"{run} ({kills[run].phase.value})" if run in kills else f"{run} (not killed)" for run in runs]
        return ", ".join(told) or "none"

    def story(number: int) -> str:
        read, begun = evidence.handled.taken.get(number, []), evidence.handled.begun.get(number, [])
        return f"read in run {killed(read)}; begun in run {killed(begun)}; ended {evidence.handled.ended[number]} times"

    return [f"{number}, {evidence.produced.topics[number]}: {story(number)}" for number in sorted(numbers)[:SHOWN]]
