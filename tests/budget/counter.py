"""Counts what Python does on a path: instructions of its bytecode, and calls of functions in C.

Nothing here depends on the machine, nor on what else it does: the same code on the same interpreter has the same count.
Counted apart are the framework's own code and that of the libraries below it. What plays the world around a path (this
folder, `kepm_plugin.testing`) is not counted.
"""

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final
from unittest import mock

import kepm_plugin

OURS: Final = str(Path(kepm_plugin.__file__).parent) + "/"
MADE: Final = "<string>"
"""Where the methods of dataclasses come from; on these paths they are the framework's."""
HERE: Final = str(Path(__file__).parent) + "/"
AROUND: Final = (HERE, OURS + "testing/")
COUNTED: Final = HERE + "reference.py"


@dataclass(slots=True)
class Steps:
    """How many steps were made, by the code object that made them."""

    by_code: Counter[CodeType] = field(default_factory=Counter[CodeType])

    def __sub__(self, other: "Steps") -> "Steps":
        # Not `-` of counters, which drops what is negative.
        left = Counter(self.by_code)
        left.subtract(other.by_code)
        return Steps(left)

    def total(self, ours: bool) -> int:
        """Return the steps of the framework's own code, or those of everything below it."""
        return sum(steps for code, steps in self.by_code.items() if code.co_filename.startswith((OURS, MADE)) is ours)

    def by_function(self) -> dict[str, int]:
        """Return the steps of each function, the most expensive first."""
        named: Counter[str] = Counter()
        for code, steps in self.by_code.items():
            file = code.co_filename.removeprefix(OURS).rpartition("site-packages/")[2]
            named[f"{file}:{code.co_qualname}"] += steps
        return dict(named.most_common())


class _Tracer:
    """What the interpreter calls at each step."""

    def __init__(self) -> None:
        self.steps = Steps()
        self._around: dict[CodeType, bool] = {}

    def called(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Take a call, or a coroutine that goes on."""
        if self._is_around(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        if event == "opcode":
            self.steps.by_code[frame.f_code] += 1
        return self._step

    def profiled(self, frame: FrameType, event: str, _: Any) -> None:
        """Take a call of a function in C."""
        if event == "c_call" and not self._is_around(frame.f_code):
            self.steps.by_code[frame.f_code] += 1

    def _is_around(self, code: CodeType) -> bool:
        found = self._around.get(code)
        if found is None:
            file = code.co_filename
            found = self._around[code] = file.startswith(AROUND) and file != COUNTED
        return found


class counted:  # noqa: N801  reads as a function, and is none so that nobody else's code is called at its end
    """Count what this thread does in the block; the tracer that was there, as that of a debugger, is put back.

    The garbage collector does not run meanwhile: it calls what others have registered.
    """

    def __enter__(self) -> Steps:
        tracer = _Tracer()
        self._tracing, self._profiling, self._collecting = sys.gettrace(), sys.getprofile(), gc.isenabled()
        gc.disable()
        sys.setprofile(tracer.profiled)
        sys.settrace(tracer.called)
        return tracer.steps

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracing)
        sys.setprofile(self._profiling)
        if self._collecting:
            gc.enable()


@contextmanager
def standing_still() -> Generator[None]:
    """Have the clock stand still, as counting takes a hundred times as long as else.

    No timer becomes due in the middle, and nothing is cut off for having taken too long.
    """
    now = time.monotonic()
    with mock.patch("time.monotonic", lambda: now):  # noqa: PT008  a mock would be counted
        yield
