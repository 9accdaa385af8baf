"""`python -m tests.chaos`: kills a plugin again and again, on each broker, and says what became of its messages.

`python -m tests.chaos faults` (or engine, burst, flood, stuck) plays that scene in its place.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from os import environ
from pathlib import Path

from tests.chaos.black_box import AIMED
from tests.chaos.campaign import WITHOUT_JOURNAL, campaign, intents
from tests.chaos.killing import Kill
from tests.chaos.rig import Scenario
from tests.chaos.scenes.playing import SCENES, played
from tests.chaos.table import table, violations
from tests.chaos.verdict import Verdict, judge

SCENARIOS = {
    Scenario(name="mosquitto"): 0.4,
    Scenario(name="nats", broker="nats"): 0.15,
    Scenario(name="embedded", embedded=True): 0.3,
    Scenario(name="mosquitto, no journal", journal=False): 0.075,
    Scenario(name="embedded, no journal", embedded=True, journal=False): 0.075,
}
"""Which part of the kills each scenario has."""

EVERY_PHASE = 0.05
"""Part of all kills that must come in each phase."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaigns, or a scene; return 1 where a promise was broken."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in SCENES:
        return played(arguments)
    given = _parsed(arguments)
    print(f"seed {given.seed}; again: make chaos SEED={given.seed} KILLS={given.kills} MESSAGES={given.messages}")
    verdicts: list[Verdict] = []
    for scenario, share in SCENARIOS.items():
        if given.only and scenario.name not in given.only:
            continue
        planned = intents(scenario, given.seed, max(1, round(given.kills * (1 if given.only else share))))
        since = time.monotonic()

        def told(kill: Kill, name: str = scenario.name, count: int = len(planned), since: float = since) -> None:
            if kill.number % 10 == 0:
                rate = (kill.number - 1) / (time.monotonic() - since)
                print(f"{name}: {kill.number - 1} of {count} kills, {rate:.2f} a second", flush=True)

        evidence = campaign(scenario, given.seed, planned, messages=given.messages, told=told, keep=given.keep)
        verdicts.append(judge(scenario.name, evidence, time.monotonic() - since))
        if verdicts[-1].broken:
            print(violations(verdicts[-1:]), flush=True)
    print(table(verdicts))
    kept = all(verdict.kept for verdict in verdicts)
    print("every promise was kept" if kept else "promises were broken, see above")
    rare = _rare(verdicts)
    if rare:
        print(f"too few kills in some phases, use more: {rare}")
    if given.json:
        given.json.write_text(
            json.dumps(
                {"seed": given.seed, "kills": given.kills, "campaigns": [verdict.as_json() for verdict in verdicts]},
                indent=2,
            )
        )
    return 0 if kept and not rare else 1


def _rare(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return the phases with too few kills to show anything."""
    least = int(EVERY_PHASE * sum(verdict.kills for verdict in verdicts))
    phases = AIMED if any(verdict.journal for verdict in verdicts) else WITHOUT_JOURNAL
    counts = {phase.value: sum(verdict.phases[phase.value] for verdict in verdicts) for phase in phases}
    return {phase: count for phase, count in counts.items() if count < least}


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", default="", help="of the plan of kills and of the messages; a random one by default")
    parser.add_argument("--kills", type=int, default=1_000, help="of all scenarios together")
    parser.add_argument("--messages", type=int, default=110, help="that are published for each kill, at least")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, help="this scenario has all kills; may be repeated")
    parser.add_argument("--json", type=Path, help="where the verdict is written")
    parser.add_argument("--keep", type=Path, help="a folder for ledgers, journal and output of each scenario")
    given = parser.parse_args(arguments)
    given.seed = given.seed or secrets.token_hex(4)
    return given


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="kepm-agents-") as name:
        environ["KEPM_DEV_AGENTS"] = name  # The agents of the harness are not on the developer's list.
        sys.exit(main())
