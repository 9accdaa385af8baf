"""What was measured, what it is compared with, and whether a bar holds. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Sample = Mapping[str, float]
"""Figures of one process in one round, by name."""

Samples = Mapping[str, Sequence[Sample]]
"""The samples of each peer, by its name; one for each round, all peers with the same rounds."""

Sense = Literal["<=", ">="]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure has to be."""

    sense: Sense
    limit: float

    def holds(self, figure: float) -> bool:
        """Tell whether a figure is as good as it has to be."""
        return figure <= self.limit if self.sense == "<=" else figure >= self.limit

    def __str__(self) -> str:
        return f"{self.sense} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, with those of the single rounds that it is the median of."""

    name: str
    values: Sequence[float]
    unit: str = ""
    bar: Bar | None = None

    @property
    def figure(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds; None where there is none."""
        return None if self.bar is None else self.bar.holds(self.figure)

    def as_json(self) -> dict[str, Any]:
        """Return the row as it is written."""
        return {
            "name": self.name,
            "figure": self.figure,
            "unit": self.unit,
            "values": list(self.values),
            "bar": None if self.bar is None else str(self.bar),
            "holds": self.holds,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """One scene: what each peer needed, and the rows that come of it."""

    scene: str
    samples: Samples = field(default_factory=dict[str, Sequence[Sample]])
    rows: Sequence[Row] = ()
    remarks: Sequence[str] = ()

    def medians(self) -> dict[str, dict[str, float]]:
        """Return each peer's figures, each the median over its rounds."""
        return {
            peer: {name: median(sample[name] for sample in rounds) for name in rounds[0]}
            for peer, rounds in self.samples.items()
            if rounds
        }

    def as_json(self) -> dict[str, Any]:
        """Return the scene as it is written."""
        return asdict(self) | {"medians": self.medians(), "rows": [row.as_json() for row in self.rows]}


def ratios(samples: Samples, ours: str, peer: str, figure: str) -> list[float]:
    """Return a figure of ours against that of a peer, round by round.

    Both were measured within seconds of each other: what else the machine did concerns both.
    """
    pairs = zip(samples[ours], samples[peer], strict=True)
    return [one[figure] / other[figure] for one, other in pairs]


def in_turn(peers: Sequence[str], rounds: int) -> Iterable[tuple[int, str]]:
    """Return which peer is measured when: all of them in each round, each round begun by another one."""
    for number in range(rounds):
        start = number % len(peers)
        yield from ((number, peer) for peer in (*peers[start:], *peers[:start]))
