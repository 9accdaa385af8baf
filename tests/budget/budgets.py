"""The budgets: the file, and whether what was counted keeps to it.

The file is that of one minor version of Python, since each has instructions of its own. There a count may exceed its
budget by less than one more call of a function takes. On another version a path is compared through the reference
routine, which is counted in the same run: it needs fewer or more instructions there as the path does. (3.12 and 3.13
take 0.91 of 3.11's for the reference, and 0.84 to 0.98 for the paths.) That is less exact, and catches what is gross.
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.budget.paths import Cost

FILE: Final = Path(__file__).parent / "budgets.json"
MARGIN: Final = 5.0
"""Steps of ours beyond the budget; a function that does nothing takes six, and one more that is in C four."""
BELOW: Final = 1.15
"""Of the libraries, times the budget: their releases are not ours."""
BELOW_MARGIN: Final = 15.0
ELSEWHERE: Final = 1.15
"""Of both, times that again, on another version of Python."""
TOO_WIDE: Final = 0.9
"""Times the budget: what stays below has a budget that hides the next regression."""
SHOWN: Final = 12

MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
REMEDY: Final = "Is that meant to be? Then write the budgets anew: python -m tests.budget --write"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What the file has."""

    python: str
    reference: float
    paths: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, file: Path = FILE) -> "Budgets":
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return cls(found["python"], found["reference"], found["paths"])

    def write(self, file: Path = FILE) -> None:
        """Write the file."""
        found = {"python": self.python, "reference": self.reference, "paths": self.paths}
        file.write_text(json.dumps(found, indent=2) + "\n", "utf-8")

    @classmethod
    def of(cls, counted: Mapping[str, Cost], reference: Cost) -> "Budgets":
        """Return budgets that are exactly what was counted here."""
        paths = {
            name: {"ours": round(each.ours, 1), "libraries": round(each.libraries, 1)} for name, each in counted.items()
        }
        return cls(MINOR, round(reference.libraries, 1), paths)

    def only(self, names: Collection[str]) -> "Budgets":
        """Return some of them."""
        return replace(self, paths={name: budget for name, budget in self.paths.items() if name in names})

    def complaints(self, counted: Mapping[str, Cost], reference: Cost, *, minor: str = MINOR) -> list[str]:
        """Return a text for each path that does not keep to its budget, or has none."""
        here = minor == self.python
        scale = 1.0 if here else reference.libraries / self.reference
        found = [f"{name!r} is not counted any more. {REMEDY}" for name in self.paths if name not in counted]
        for name, cost in counted.items():
            if name not in self.paths:
                found.append(f"{name!r} has no budget. {REMEDY}")
                continue
            ours, libraries = self.paths[name]["ours"] * scale, self.paths[name]["libraries"] * scale
            looser = 1.0 if here else ELSEWHERE
            most, below = ours * looser + MARGIN, libraries * looser * BELOW + BELOW_MARGIN
            if cost.ours > most:
                found.append(_exceeded(name, "the framework's code", cost.ours, ours, cost))
            if cost.libraries > below:
                found.append(_exceeded(name, "libraries", cost.libraries, libraries, cost))
            if here and cost.ours < ours * TOO_WIDE - MARGIN:
                found.append(
                    f"{name!r} takes {cost.ours:.1f} steps of the framework's code, and has a budget of {ours:.1f}, "
                    f"which would hide a regression. Keep the gain: python -m tests.budget --write"
                )
        return found


def _exceeded(name: str, whose: str, steps: float, budget: float, cost: Cost) -> str:
    most = list(cost.functions.items())[:SHOWN]
    more = f"{steps - budget:.1f} more than its budget of {budget:.1f}"
    return "\n".join(
        [
            f"{name!r} takes {steps:.1f} steps of {whose}, {more}. {REMEDY}",
            "The most are in, now (the same of an earlier revision: python -m tests.budget --functions there):",
            *(f"  {steps:8.1f}  {function}" for function, steps in most),
        ]
    )
