"""`python -m tests.chaos.edits.actor`: the process of the plugin that edits its settings. The framework is as it is."""

import argparse
import sys
from pathlib import Path
from random import Random

from kepm_plugin.runtime import RunOptions, run
from tests.chaos.edits.editing_plugin import Editing
from tests.chaos.edits.notes import Notebook
from tests.chaos.edits.orders import Orders, Slot


def main() -> int:
    """Run the plugin, until somebody kills it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-base")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seed", default="")
    given = parser.parse_args()
    with Orders(given.work / "orders") as Editing.orders:
        run_number = Editing.orders[Slot.RUN]
        Editing.notebook = Notebook(given.work / "notes", run_number)
        Editing.random = Random(f"{given.seed} {run_number}")  # noqa: S311  no secret
        options = RunOptions(api_base=given.api_base, data_dir=given.work / "data", lock_dir=given.work / "lock")
        return run(Editing, options)


if __name__ == "__main__":
    sys.exit(main())
