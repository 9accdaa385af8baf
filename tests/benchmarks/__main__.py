"""`python -m tests.benchmarks`: measures ours and its peers on this machine, and says whether each bar holds."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks import machine
from tests.benchmarks.figures import Measured, Row
from tests.benchmarks.scenes import handlers, log, publish, receive, rest, start
from tests.benchmarks.stage import Pythons, Size, Stage, staged
from tests.benchmarks.table import medians, table

SCENES: Final[dict[str, Callable[[Stage], list[Measured]]]] = {
    "receive": receive.measure,
    "handlers": handlers.measure,
    "publish": publish.measure,
    "start": start.measure,
    "rest": rest.measure,
    "log": log.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 1 where a bar was missed and that is asked for."""
    given = _parsed(arguments)
    pythons = Pythons(ours=given.ours, peers=given.peers)
    size = Size(rounds=given.rounds, messages=given.messages, publications=2 * given.messages, rest=given.rest)
    measured: list[Measured] = []
    with staged(pythons, size) as stage:
        about = machine.described(pythons, stage.broker.version)
        print(machine.line(about))
        for name in given.scenes:
            since = time.monotonic()
            found = SCENES[name](stage)
            measured += found
            print("", "\n\n".join(medians(one) for one in found), sep="\n")
            print(f"({name}: {time.monotonic() - since:.0f} s)", flush=True)
    rows = [row for one in measured for row in one.rows]
    print("", table(rows), sep="\n")
    if given.json:
        sizes = {"rounds": size.rounds, "messages": size.messages, "rest": size.rest}
        found_all = {**about, "size": sizes, "scenes": [one.as_json() for one in measured]}
        given.json.write_text(json.dumps(found_all, indent=2) + "\n", "utf-8")
    return _told(rows, given.check)


def _told(rows: Sequence[Row], check: bool) -> int:
    missed = [row.name for row in rows if row.holds is False]
    print(f"missed: {len(missed)} of {sum(row.bar is not None for row in rows)} bars" if missed else "every bar holds")
    return 1 if missed and check else 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("scenes", nargs="*", type=_scene, help=f"of {', '.join(SCENES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="of each scene")
    parser.add_argument("--messages", type=int, default=10_000, help="of one process in one round")
    parser.add_argument("--rest", type=float, default=60.0, metavar="SECONDS", help="for which a process rests")
    parser.add_argument("--ours", default=sys.executable, metavar="PYTHON", help="an environment without extras")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="an environment with the peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is missed")
    given = parser.parse_args(arguments)
    given.scenes = given.scenes or list(SCENES)
    return given


def _scene(name: str) -> str:
    if name not in SCENES:
        raise argparse.ArgumentTypeError(f"there is no scene {name!r}; choose from {', '.join(SCENES)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
