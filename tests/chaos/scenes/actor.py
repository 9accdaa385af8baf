"""`python -m tests.chaos.scenes.actor`: the process of the scenes' plugin. The framework is as it is."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.message import Received
from kepm_plugin.runtime import RunOptions, run
from tests.chaos.scenes.board import Board, Column
from tests.chaos.scenes.scene_plugin import Scene

FORGOTTEN = 5
"""Of so many messages one is forgotten, where any are."""


def forget(qos: int) -> None:
    """Have the framework acknowledge some messages of one QoS and forget them: a scene must find that."""
    receive, seen = Dispatcher.receive, 0

    def forgetful(self: Dispatcher, batch: Sequence[Received], acknowledge: Callable[[Sequence[int]], None]) -> None:
        nonlocal seen
        kept: list[Received] = []
        for received in batch:
            concerned = received.qos == qos and received.topic.startswith(f"{Scene.id}/Events/")
            seen += concerned
            if not concerned or seen % FORGOTTEN:
                kept.append(received)
            elif qos:
                acknowledge([received.mid])
        receive(self, kept, acknowledge)

    Dispatcher.receive = forgetful  # type: ignore[method-assign]


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-base")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--no-journal", dest="journal", action="store_false")
    parser.add_argument("--outbox", choices=("memory", "disk"), default="memory")
    parser.add_argument("--forget", type=int, help="messages of this QoS, some of them")
    given = parser.parse_args()
    if given.forget is not None:
        forget(given.forget)
    Scene.journal, Scene.outbox = given.journal, given.outbox
    with Board(given.work / "board") as Scene.board:
        Scene.board.touch((Column.HANDLED, Column.COUNT))
        options = RunOptions(api_base=given.api_base, data_dir=given.work / "data", lock_dir=given.work / "lock")
        return run(Scene, options)


if __name__ == "__main__":
    sys.exit(main())
