"""`python -m tests.budget`: counts the steps of each path, and says which exceed their budget; `--write` sets them."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import anyio

from tests.budget.budgets import MINOR, Budgets
from tests.budget.paths import FLAT, PATHS, REFERENCE, Cost, cost

GROWTH: Final = 1.1
"""Times as many steps as with little: no more with much. One step for each thing that is there would be more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Count; return 1 where a budget is exceeded, or something is not flat."""
    given = _parsed(arguments)
    names = [name for name in PATHS if name in given.paths or not given.paths]
    reference, counted = anyio.run(_counted, names)
    if given.json:
        print(json.dumps({"reference": asdict(reference)} | {name: asdict(each) for name, each in counted.items()}))
        return 0
    if given.write:
        Budgets.of(counted, reference).write()
    budgets = Budgets.read()
    _show(counted, budgets, functions=given.functions)
    complaints = (budgets.only(names) if given.paths else budgets).complaints(counted, reference)
    complaints += anyio.run(_growing, [name for name in FLAT if name in given.paths or not given.paths])
    print(*complaints, sep="\n\n")
    return 1 if complaints else 0


async def _counted(names: Sequence[str]) -> tuple[Cost, dict[str, Cost]]:
    return await cost(REFERENCE), {name: await cost(PATHS[name]) for name in names}


async def _growing(names: Sequence[str]) -> list[str]:
    """Return a text for each thing that is not flat."""
    found = list[str]()
    for name in names:
        little, much = await FLAT[name].costs()
        print(f"{name:78} {little.ours:8.1f} {much.ours:8.1f}")
        if much.ours > little.ours * GROWTH:
            found.append(f"{name!r}: {little.ours:.1f} steps became {much.ours:.1f}; this has to be flat")
    return found


def _show(counted: Mapping[str, Cost], budgets: Budgets, *, functions: bool) -> None:
    print(f"steps of one message, publication or log call; Python {MINOR}, budgets of Python {budgets.python}")
    print(f"{'':60} {'ours':>8} {'budget':>8} {'libraries':>10} {'budget':>8}")
    for name, each in counted.items():
        budget = budgets.paths.get(name, {"ours": 0.0, "libraries": 0.0})
        print(f"{name:60} {each.ours:8.1f} {budget['ours']:8.1f} {each.libraries:10.1f} {budget['libraries']:8.1f}")
        if functions:
            print(*(f"    {steps:8.1f}  {function}" for function, steps in each.functions.items()), sep="\n")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.budget", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="count these alone; all by default")
    parser.add_argument("--write", action="store_true", help="make what is counted the budgets")
    parser.add_argument("--functions", action="store_true", help="show the steps of each function")
    parser.add_argument("--json", action="store_true", help="print what was counted, for programs")
    given = parser.parse_args(arguments)
    if given.write and given.paths:
        parser.error("--write is for all paths")
    for name in given.paths:
        if name not in PATHS and name not in FLAT:
            parser.error(f"there is no path {name!r}; choose from {', '.join(map(repr, (*PATHS, *FLAT)))}")
    return given


if __name__ == "__main__":
    sys.exit(main())
