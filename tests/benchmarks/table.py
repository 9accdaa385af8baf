"""Figures as a person reads them."""

from collections.abc import Sequence

from tests.benchmarks.figures import Measured, Row

HEADS = ("figure", "median", "lowest", "highest", "bar", "holds")


def table(rows: Sequence[Row]) -> str:
    """Return one line for each row."""
    return aligned([HEADS, *(_cells(row) for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    holds = {True: "yes", False: "NO", None: ""}[row.holds]
    bar = "" if row.bar is None else f"{row.bar}"
    unit = f" {row.unit}" if row.unit else ""
    return (row.name, f"{row.figure:.2f}{unit}", f"{min(row.values):.2f}", f"{max(row.values):.2f}", bar, holds)


def medians(measured: Measured) -> str:
    """Return one line for each peer, with what it needed."""
    found = measured.medians()
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [(measured.scene, *names)]
    for peer, figures in found.items():
        lines.append((f"  {peer}", *(_number(figures.get(name)) for name in names)))
    return "\n".join([aligned(lines), *(f"  ({remark})" for remark in measured.remarks)])


def _number(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if abs(figure) >= 1_000 else f"{figure:.1f}" if abs(figure) >= 10 else f"{figure:.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = cells
    aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
    return "  ".join([first.ljust(widths[0]), *aligned]).rstrip()
