"""What a piece of an author's code is called, and where it is: words for those who look for it."""

import inspect
import traceback
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final

from msgspec import Struct

FRAMES: Final = 30
"""Calls of a stack that are told, the innermost ones."""

_BETWEEN: Final = {__name__.partition(".")[0], "anyio", "asyncio"}
_HERE: Final = __name__.rpartition(".")[0]


class Place(Struct, frozen=True):
    """Where a thread was at one moment, from the call that is watched inwards. Reads no file until it is told."""

    lines: tuple[traceback.FrameSummary, ...]
    foreign: CodeType | None
    """The outermost code in it that belongs neither to the framework nor to what runs tasks."""

    def __str__(self) -> str:
        return "".join(traceback.StackSummary.from_list(self.lines).format()).rstrip("\n")


def place_of(frame: FrameType | None) -> Place | None:
    """Return where a running thread is, inwards of the guard's outermost frame; None where it has none."""
    inner: list[FrameType] = []
    below = -1
    while frame is not None:
        if _is_edge(frame):
            below = len(inner)
        inner.append(frame)
        frame = frame.f_back
    if below < 0:
        return None
    outwards = [one for one in inner[:below] if not _is_edge(one)]
    foreign = next((one.f_code for one in reversed(outwards) if not _is_between(one.f_globals.get("__name__"))), None)
    return Place(tuple(_lines(outwards[:FRAMES])), foreign)


def _is_edge(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return isinstance(module, str) and module.rpartition(".")[0] == _HERE


def _lines(frames: list[FrameType]) -> Iterator[traceback.FrameSummary]:
    for frame in reversed(frames):
        code = frame.f_code
        # The line is None while a frame has only just begun.
        yield traceback.FrameSummary(code.co_filename, frame.f_lineno or 0, code.co_name, lookup_line=False)


def _is_between(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] in _BETWEEN


def name_of(what: Any, place: Place | None = None) -> str:
    """Return a function's or coroutine's name with its file and line, as in `Scan.handle (scan.py, line 7)`.

    Where that would be what stands between us and the author, such as a decoder or the start of a task, and the place
    is known, it is the author's code there.
    """
    between = inspect.iscoroutine(what) or _is_between(getattr(what, "__module__", None))
    if between and place is not None and place.foreign is not None:
        return _with_place(_short(place.foreign.co_qualname), place.foreign)
    if inspect.ismethod(what):  # An inherited one is named by the class that runs it.
        name = f"{type(what.__self__).__qualname__}.{what.__name__}"
    else:
        name = getattr(what, "__qualname__", None) or type(what).__qualname__
    plain = inspect.unwrap(what) if callable(what) else what
    return _with_place(_short(name), getattr(plain, "__code__", None) or getattr(plain, "cr_code", None))


def _short(qualified: str) -> str:
    return qualified.rpartition("<locals>.")[2]


def _with_place(name: str, code: CodeType | None) -> str:
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"
