"""Numbers that processes share: a file in the memory of each, which outlives every one of them."""

import mmap
from pathlib import Path
from types import TracebackType
from typing import Self

WIDTH = 8
"""Bytes of a number."""


class Numbers:
    """The open file, made with zeros where it is missing. Close it by leaving its context."""

    def __init__(self, path: Path, size: int) -> None:
        if not path.exists():
            with path.open("wb") as made:
                made.truncate(size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._numbers = memoryview(self._map).cast("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._numbers.release()
        self._map.close()
