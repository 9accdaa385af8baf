"""A short run of the chaos harness on each broker, and proof that it can fail."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.chaos.black_box import AIMED, Moment, Phase
from tests.chaos.campaign import WITHOUT_JOURNAL, campaign, intents
from tests.chaos.killing import Intent
from tests.chaos.rig import Scenario
from tests.chaos.verdict import Verdict, judge

SEED = "20"
MESSAGES = 60
AT_ONCE = 3
"""Campaigns; each waits for processes most of the time."""

PATIENCE = 50.0
QUIET = 1.0
"""Seconds without any progress after which what a mutant has lost is taken for lost."""

KEEPING = {
    "mosquitto": Scenario(name="mosquitto"),
    "nats": Scenario(name="nats", broker="nats"),
    "embedded": Scenario(name="embedded", embedded=True),
    "no journal": Scenario(name="no journal", journal=False),
    "embedded, no journal": Scenario(name="embedded, no journal", embedded=True, journal=False),
}
LOSING = {
    "acknowledge-before-commit": (
        Scenario(name="early", mutant="acknowledge-before-commit"),
        Intent(aim=Phase.BEFORE_COMMIT, moment=Moment.NAMED),
    ),
    "acknowledge-on-arrival": (
        Scenario(name="on arrival", journal=False, mutant="acknowledge-on-arrival"),
        Intent(aim=Phase.IN_HANDLER, nth=10, moment=Moment.NAMED),
    ),
    "answer-not-kept": (
        Scenario(name="no answer", mutant="answer-not-kept"),
        Intent(aim=Phase.ANSWER_UNSENT, moment=Moment.ENTERED),
    ),
    "never-done": (
        Scenario(name="never done", mutant="never-done"),
        Intent(aim=Phase.TO_DONE, nth=30, moment=Moment.NAMED),
    ),
}
Pending = dict[str, Future[Verdict]]


def _kept(scenario: Scenario) -> Verdict:
    planned = intents(scenario, SEED, (len(AIMED) if scenario.journal else len(WITHOUT_JOURNAL)) + 1)
    return judge(scenario.name, campaign(scenario, SEED, planned, messages=MESSAGES, timeout=30.0), 0.0)


def _lost(scenario: Scenario, intent: Intent) -> Verdict:
    return judge(scenario.name, campaign(scenario, SEED, [intent], messages=MESSAGES, quiet=QUIET), 0.0)


@pytest.fixture(scope="module")
def verdicts() -> Generator[Pending]:
    """All campaigns, some at a time."""
    with ThreadPoolExecutor(AT_ONCE, "campaign") as pool:
        pending = {name: pool.submit(_kept, scenario) for name, scenario in KEEPING.items()}
        pending |= {name: pool.submit(_lost, *what) for name, what in LOSING.items()}
        yield pending


@pytest.mark.parametrize("name", KEEPING)
def test_no_message_is_lost_by_a_kill_in_any_phase(verdicts: Pending, name: str) -> None:
    verdict = verdicts[name].result(PATIENCE)
    assert not verdict.broken, verdict.broken
    assert verdict.missed_aims == 0
    assert verdict.kills == sum(verdict.phases.values())
    assert verdict.handled + verdict.given_up >= verdict.acknowledged_by_plugin > 0
    assert verdict.commands > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("acknowledge-before-commit", "that the broker acknowledged were not handled"),
        ("acknowledge-on-arrival", "that the broker acknowledged were not handled"),
        ("answer-not-kept", "commands were not answered"),
        ("never-done", "messages were handled again"),
    ],
)
def test_the_harness_finds_what_a_wrong_framework_does(verdicts: Pending, name: str, words: str) -> None:
    verdict = verdicts[name].result(PATIENCE)
    assert verdict.missed_aims == 0
    found = [broken for broken in verdict.broken if words in broken.promise]
    assert found, verdict.broken
    assert found[0].messages
