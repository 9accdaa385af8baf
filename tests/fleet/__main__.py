"""`python -m tests.fleet`: measures what a connection costs here, and says how fleets come back after an outage.

First the real thing, as many plugins as this machine carries; then the model, calibrated on it, for more of them, for
other agents, and for other ways to wait.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.fleet.model import Costs
from tests.fleet.real import Measured, calibrated, fleet, started
from tests.fleet.report import choice, comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, play, print."""
    given = _parsed(arguments)
    costs, measured = Costs(), list[Measured]()
    if not given.model:
        costs = calibrated(given.rounds)
        for plugins in given.sizes:
            with fleet(plugins, given.processes) as found:
                measured += [found.outage(given.outage) for _ in range(given.rounds)]
    milliseconds = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in asdict(costs).items())
    print(f"ms of a processor: {milliseconds}" + (" (not measured)" if given.model else ""))
    if measured:
        print("", f"an outage of {given.outage:g} s, the real thing and the model", sep="\n")
        print(comparison(measured, costs, given.outage))
    if given.starts and not given.model:
        served, each, failed = started(given.starts)
        print("", f"{given.starts} processes, started at once: the first serves after {served[0]:.1f} s,", sep="\n")
        print(f"the last after {served[-1]:.1f} s; each took {each:.2f} s of a processor;")
        print(f"{failed} attempts led to nothing")
    print("", "the model, on two processors", "", choice(costs), sep="\n")
    if given.json:
        found_all = {"costs": asdict(costs), "outage": given.outage, "measured": [asdict(one) for one in measured]}
        given.json.write_text(json.dumps(found_all, indent=2) + "\n", "utf-8")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50, 100], help="plugins of the real thing")
    parser.add_argument("--processes", type=int, default=2, help="that run them")
    parser.add_argument("--rounds", type=int, default=3, help="outages of each")
    parser.add_argument("--starts", type=int, default=10, metavar="PLUGINS", help="processes that are started at once")
    parser.add_argument("--outage", type=float, default=3.0, metavar="SECONDS", help="how long one is")
    parser.add_argument("--model", action="store_true", help="the model alone, with costs that were measured once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where what was measured is written")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
