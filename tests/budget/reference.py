"""What a path is compared with on an interpreter that has no budgets of its own: plain Python of the usual kind.

It does what a message's way is made of: attributes, calls, dictionaries, a queue, a generator, an exception, bytes and
text. Where an interpreter needs other instructions for these, it does so for the paths too.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Item:
    topic: str
    body: bytes
    number: int


class _Lane:
    def __init__(self) -> None:
        self._waiting: deque[_Item] = deque()
        self._seen: dict[str, int] = {}
        self.refused = 0

    def put(self, item: _Item) -> None:
        if not item.body:
            raise ValueError("empty")
        self._waiting.append(item)
        self._seen[item.topic] = self._seen.get(item.topic, 0) + 1

    def take(self) -> Iterator[_Item]:
        while self._waiting:
            yield self._waiting.popleft()


def reference(count: int) -> int:
    """Do something so many times; return what came of it."""
    lane, total = _Lane(), 0
    for number in range(count):
        body = b"" if number % 8 == 0 else b"abc/%d" % number
        try:
            lane.put(_Item(f"a/{number & 7}", body, number))
        except ValueError:
            lane.refused += 1
    for item in lane.take():
        levels: Any = item.body.decode().split("/")
        if len(levels) == 2 and item.number >= 0:
            total += sum(len(level) for level in levels)
    return total + lane.refused
