"""What a piece of an author's code is called, and where it is: words for those who look for it."""

import functools
import inspect
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final

FRAMES: Final = 30
"""Calls of a stack that are told, the innermost ones."""

_OURS: Final = __name__.partition(".")[0]
_HERE: Final = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a thread was at one moment, from the call that is watched inwards. Reads no file until it is told."""

    lines: tuple[traceback.FrameSummary, ...]
    foreign: CodeType | None
    """The outermost code in it that is not the framework's."""

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
    foreign = next((one.f_code for one in reversed(outwards) if not _is_ours(one.f_globals.get("__name__"))), None)
    return Place(tuple(_lines(outwards[:FRAMES])), foreign)


def _is_edge(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return isinstance(module, str) and module.rpartition(".")[0] == _HERE


def _lines(frames: list[FrameType]) -> Iterator[traceback.FrameSummary]:
    for frame in reversed(frames):
        code = frame.f_code
        # The line is None while a frame has only just begun.
        yield traceback.FrameSummary(code.co_filename, frame.f_lineno or 0, code.co_name, lookup_line=False)


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == _OURS


def name_of(what: Any, place: Place | None = None) -> str:
    """Return a function's or coroutine's name with its file and line, as in `Scan.handle (scan.py, line 7)`.

    Where that would be the framework's own, such as a decoder, and the place is known, it is the author's code there.
    """
    while isinstance(what, functools.partial):
        what = what.func
    if place is not None and place.foreign is not None and _is_ours(getattr(what, "__module__", None)):
        return _with_place(_short(place.foreign.co_qualname), place.foreign)
    owner = getattr(what, "__self__", None)
    name = getattr(what, "__qualname__", None) or type(what).__qualname__
    if inspect.ismethod(what):
        # An inherited method is named by the class that runs it.
        kind = owner if isinstance(owner, type) else type(owner)
        name = f"{kind.__qualname__}.{what.__name__}"
    plain = inspect.unwrap(what) if callable(what) else what
    return _with_place(_short(name), getattr(plain, "__code__", None) or getattr(plain, "cr_code", None))


def _short(qualified: str) -> str:
    return qualified.rpartition("<locals>.")[2]


def _with_place(name: str, code: CodeType | None) -> str:
    return name if code is None else f"{name} ({code.co_filename}, line {code.co_firstlineno})"
