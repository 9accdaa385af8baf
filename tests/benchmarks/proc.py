"""What the kernel tells of another process: memory, processor time, wake-ups."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Used:
    """What all threads of a process have used so far; those that ended meanwhile are not in it.

    Attributes:
        cpu: Seconds on a processor, user and system, to the nanosecond: `stat` counts ticks of 10 ms.
        wakeups: How often a thread has given its processor up to wait for something, and so was to be woken up.
    """

    cpu: float
    wakeups: int


def used(pid: int) -> Used:
    """Read it."""
    cpu, wakeups = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu += int((task / "schedstat").read_text("ascii").split()[0])
        wakeups += _field((task / "status").read_text("utf-8", "replace"), "voluntary_ctxt_switches")
    return Used(cpu / 1e9, wakeups)


def memory(pid: int) -> dict[str, float]:
    """Return resident memory in MiB: all of it, and with what is shared counted in parts."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    return {"RSS MiB": _field(text, "Rss") / 1024, "PSS MiB": _field(text, "Pss") / 1024}


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"the kernel tells no {name}")
    return int(found[1])
