"""`python -m tests.chaos.victim`: the process that the local agent launches and the harness kills."""

import argparse
import os
import sys
from pathlib import Path

from kepm_plugin.runtime import RunOptions, run
from tests.chaos.black_box import BlackBox, Slot
from tests.chaos.chaos_plugin import Chaos
from tests.chaos.instruments import instrument
from tests.chaos.ledger import Ledger
from tests.chaos.mutants import MUTANTS
from tests.chaos.reaper import Reaper


def main() -> int:
    """Run the plugin, watched, until somebody kills it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-base")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--no-journal", dest="journal", action="store_false")
    parser.add_argument("--clean-session", action="store_true")
    parser.add_argument("--mutant", choices=MUTANTS)
    given = parser.parse_args()
    box = BlackBox(given.work / "box")
    box[Slot.PID] = os.getpid()
    Chaos.journal, Chaos.clean_session = given.journal, given.clean_session
    Chaos.ledger, Chaos.run = Ledger(given.work / "handled"), box[Slot.RUN]
    reaper = Reaper(box)
    if given.mutant:
        MUTANTS[given.mutant](reaper)
    instrument(reaper, f"{Chaos.id}/Responses/")
    return run(Chaos, RunOptions(api_base=given.api_base, data_dir=given.work / "data", lock_dir=given.work / "lock"))


if __name__ == "__main__":
    sys.exit(main())
