"""Scene `settings`: a plugin edits its settings, others write too, faults come and go, and it is killed amid edits."""

import argparse
import time
from pathlib import Path

from tests.chaos.edits.play import play
from tests.chaos.edits.verdict import judge
from tests.chaos.scenes.report import Report, Row, seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this scene can be told."""
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--transactions", type=int, default=1_000, help="of the plugin's own, at least")
    parser.add_argument("--keep", type=Path, help="a folder for the plugin's notes and the agent's output")
    parser.add_argument("--undisturbed", action="store_true", help="without faults, and without others who write")


def scene(given: argparse.Namespace) -> Report:
    """Play it as the command line says."""
    since = time.monotonic()
    evidence = play(
        given.seed,
        given.kills,
        given.transactions,
        disturbed=not given.undisturbed,
        told=lambda line: print(f"{line}, {time.monotonic() - since:.0f} s", flush=True),
        keep=given.keep,
    )
    report = judge(evidence)
    report.rows.insert(0, Row("seconds", {"count": seconds(time.monotonic() - since)}))
    return report
