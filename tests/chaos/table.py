"""Verdicts as a person reads them."""

from collections.abc import Sequence

from tests.chaos.black_box import Phase
from tests.chaos.verdict import Verdict

ROWS = (
    ("kills", "kills"),
    *((f"  {phase.value}", phase.value) for phase in Phase),
    ("sent at QoS 1", "sent"),
    ("  acknowledged by the broker", "acknowledged"),
    ("  acknowledged by the plugin", "acknowledged_by_plugin"),
    ("  handled", "handled"),
    ("  given up, dead letters", "given_up"),
    ("  unhandled", "unhandled"),
    ("commands", "commands"),
    ("  unanswered", "unanswered"),
    ("received again", "received_again"),
    ("  at most", "received_again_most"),
    ("handled again", "handled_again"),
    ("  at most", "handled_again_most"),
    ("aims missed", "missed_aims"),
    ("sessions lost otherwise", "lost_sessions"),
    ("seconds", "seconds"),
)
"""Label, and the name of a figure or of a phase."""


def table(verdicts: Sequence[Verdict]) -> str:
    """Return one column for each campaign."""
    columns = [[label for label, _ in ROWS]]
    for verdict in verdicts:
        figures = verdict.as_json() | verdict.phases
        columns.append(["-" if figures[name] is None else str(figures[name]) for _, name in ROWS])
    heads = ["", *(verdict.scenario for verdict in verdicts)]
    widths = [max(map(len, [head, *column])) for head, column in zip(heads, columns, strict=True)]
    return "\n".join(_line(row, widths) for row in (heads, *zip(*columns, strict=True)))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    label, *figures = row
    aligned = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)]
    return "  ".join([label.ljust(widths[0]), *aligned])


def violations(verdicts: Sequence[Verdict]) -> str:
    """Return each broken promise, and the messages that it was about."""
    lines: list[str] = []
    for verdict in verdicts:
        for broken in verdict.broken:
            lines += [f"{verdict.scenario}: BROKEN: {broken.promise}", *(f"    {each}" for each in broken.messages)]
    return "\n".join(lines)
