"""`Size`: a number of bytes, read and written with a unit."""

import re
from typing import Final, Self

from ._amounts import NUMBER, product

_STEPS: Final = "KMGTPE"
_UNITS: Final = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate(_STEPS, 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate(_STEPS, 1)},
}
_SPELLINGS: Final = {unit.casefold(): size for unit, size in _UNITS.items()} | {"byte": 1, "bytes": 1}
# Not `10M`: some read it as 10,000,000 and some as 10,485,760.
_TEXT: Final = rf"({NUMBER})(e[+-]?\d{{1,2}})?\s*([a-z]*)"
_LONGEST: Final = 100  # characters of a text
_LIMIT: Final = 2**63  # what .NET calls a long ends below it


class Size(int):
    """A number of bytes: `Size(1024)`, `Size("10 MB")`, `Size("64KiB")`, `Size("1.5 GB")`.

    It is an `int`, and sums or products of it are plain ones. `KB`, `MB`, `GB`, `TB`, `PB`, `EB` are powers of 1000,
    `KiB` to `EiB` powers of 1024, in any casing; a number without a unit is bytes. As text it is written with the unit
    that needs the fewest digits and loses nothing: `64KiB`, `10MB`, `1500B`.

    Raises:
        ValueError: It is no such text, no whole number of bytes, below 0, or above 2^63 - 1.
        TypeError: It is made of neither an `int` nor a `str`.
    """

    __slots__ = ()

    def __new__(cls, value: int | str = 0, /) -> Self:
        """Make a size of a number of bytes or of a text."""
        if isinstance(value, str):
            value = _parsed(value)
        elif isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"a Size is made of an int or a str, not of {type(value).__name__}")
        if not 0 <= value < _LIMIT:
            raise ValueError("a size is from 0 to 2^63 - 1 bytes")
        return super().__new__(cls, value)

    def __str__(self) -> str:
        number, unit = min(
            ((self // size, unit) for unit, size in _UNITS.items() if self % size == 0 and (self or unit == "B")),
            key=lambda found: (found[0], found[1][1:] != "iB"),
        )
        return f"{number}{unit}"

    def __repr__(self) -> str:
        return f"Size({str(self)!r})"

    def __format__(self, spec: str, /) -> str:
        return format(int(self), spec) if spec else str(self)

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (int(self),)


def _parsed(text: str) -> int:
    found = re.fullmatch(_TEXT, text.strip().casefold(), re.ASCII) if len(text) <= _LONGEST else None
    if not found or (found[3] and found[3] not in _SPELLINGS):
        raise ValueError("a size is a number and a unit, as in 10MB or 64KiB")
    value, rest = product(found[1], _SPELLINGS.get(found[3], 1), found[2])
    if rest:
        raise ValueError("a size is a whole number of bytes")
    return value
