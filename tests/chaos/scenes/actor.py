"""`python -m tests.chaos.scenes.actor`: the process of the scenes' plugin. The framework in it is as authors have it."""

import argparse
import sys
from pathlib import Path

from kepm_plugin.runtime import RunOptions, run
from tests.chaos.scenes.board import Board, Column
from tests.chaos.scenes.scene_plugin import Scene


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-base")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--no-journal", dest="journal", action="store_false")
    given = parser.parse_args()
    Scene.journal = given.journal
    with Board(given.work / "board") as Scene.board:
        Scene.board.touch((Column.HANDLED, Column.COUNT))
        options = RunOptions(api_base=given.api_base, data_dir=given.work / "data", lock_dir=given.work / "lock")
        return run(Scene, options)


if __name__ == "__main__":
    sys.exit(main())
