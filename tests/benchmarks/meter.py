"""The measuring inside a process, told on standard output, one JSON object a line.

Time of the processor is that of the whole process, all threads, user and system, by a clock that is finer than that of
`os.times`. Peak memory is that of this program alone: what the kernel tells a parent would hold the parent's own memory
before `exec`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

STATUS: Final = Path("/proc/self/status")


def tell(event: str, **figures: Any) -> None:
    """Write one line for the harness."""
    sys.stdout.write(json.dumps({"event": event, **figures}) + "\n")
    sys.stdout.flush()


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


class Span:
    """A stretch of work, from when this was made to `end`."""

    def __init__(self) -> None:
        self._since, self._cpu = time.monotonic(), time.process_time()

    def end(self, count: int) -> None:
        """Tell what it took, for so many calls."""
        cpu, seconds = time.process_time() - self._cpu, time.monotonic() - self._since
        tell("figures", cpu=cpu / count * 1e6, rate=count / seconds, peak=peak())


class Meter:
    """Counts messages, and tells "ready" at the first one, then "drained" at the last one of each burst.

    The first one is the harness's, to find out whether the subscription is in force.
    """

    def __init__(self, burst: int) -> None:
        self._burst, self._seen, self._next = burst, 0, 1

    def message(self) -> None:
        """Count one message."""
        self._seen += 1
        if self._seen == self._next:
            self._mark()

    def _mark(self) -> None:
        at, cpu = time.monotonic(), time.process_time()
        if self._seen == 1:
            tell("ready")
        else:
            tell("drained", at=at, cpu=cpu, peak=peak())
        self._next += self._burst
