"""What a scene reports: rows of figures, and the promises that were broken. As a table and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Row:
    """One line of the table. Figures are shown as they are; those of the first row name the columns."""

    name: str
    figures: dict[str, object] = field(default_factory=dict[str, object])
    broken: list[str] = field(default_factory=list[str])
    """What was promised and did not hold, in words."""

    def promise(self, kept: bool, words: str) -> None:
        """Note a promise that was not kept."""
        if not kept:
            self.broken.append(words)


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of a scene."""

    scene: str
    rows: list[Row] = field(default_factory=list[Row])

    @property
    def broken(self) -> list[str]:
        """Each broken promise, with the row that it is of."""
        return [f"{row.name}: {words}" for row in self.rows for words in row.broken]

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can say."""
        rows = [{"name": row.name, **row.figures, "broken": row.broken} for row in self.rows]
        return {"scene": self.scene, "kept": not self.broken, "rows": rows}

    def __str__(self) -> str:
        """Return the table, and below it the promises that were broken."""
        heads = list(dict.fromkeys(key for row in self.rows for key in row.figures))
        cells = [[row.name, *(str(row.figures.get(head, "")) for head in heads)] for row in self.rows]
        told = [f"BROKEN: {each}" for each in self.broken] or ["every promise was kept"]
        return "\n".join([*_aligned([[self.scene, *heads], *cells]), *told])


def _aligned(lines: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        figures = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *figures]).rstrip()


def seconds(value: float) -> float:
    """Round a time for a table."""
    return round(value, 2)


def at(part: float, values: Iterable[float]) -> float:
    """Return the value below which a part of the values lies, 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
