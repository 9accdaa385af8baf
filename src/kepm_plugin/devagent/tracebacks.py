"""Makes a traceback that came in a log record readable: line by line, the author's frames before those of others."""

import re
from collections.abc import Iterator
from typing import Final

_FRAME: Final = re.compile(r'^(?P<margin>[ |]*)File "(?P<file>[^"]+)", line \d+')
_NOT_THE_AUTHORS: Final = re.compile(
    r"[/\\](site-packages|dist-packages|kepm_plugin)[/\\]"
    r"|[/\\]lib[/\\]python3\.\d+[/\\]|[/\\]Python3\d+[/\\]lib[/\\]|^<frozen ",
    re.IGNORECASE,
)


def readable(traceback: str) -> list[str]:
    """Return a traceback's lines; where it goes through the author's code, other frames shrink to their number."""
    shown: list[str] = []
    for block in _blocks(traceback.splitlines()):
        authors = [frame for frame in block if not _NOT_THE_AUTHORS.search(_file(frame))]
        if not authors or len(authors) == len(block):
            shown += [line for frame in block for line in frame]
            continue
        left_out = 0
        for frame in block:
            if frame in authors:
                shown += [*_gap(left_out, frame), *frame]
                left_out = 0
            else:
                left_out += 1
        shown += _gap(left_out, block[-1])
    return shown


def _blocks(lines: list[str]) -> Iterator[list[list[str]]]:
    """Yield what stands together: frames that call each other, each with its lines of source; or one other line."""
    block: list[list[str]] = []
    margin = ""
    for line in lines:
        if found := _FRAME.match(line):
            margin = found["margin"]
            block.append([line])
        elif block and line.startswith(margin + "  "):
            block[-1].append(line)
        else:
            if block:
                yield block
            block = []
            yield [[line]]
    if block:
        yield block


def _file(frame: list[str]) -> str:
    found = _FRAME.match(frame[0])
    return found["file"] if found else ""


def _gap(number: int, frame: list[str]) -> list[str]:
    found = _FRAME.match(frame[0])
    margin = found["margin"] if found else ""
    return [f"{margin}… {number} frame{'s' if number > 1 else ''} of other code left out"] if number else []
