"""Kinds of values without parts."""

import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from ._amounts import NUMBER
from ._kind import Kind
from ._moments import READERS, checked_date, checked_duration, checked_moment, checked_time
from ._secret import Secret
from ._sizes import Size

_BOOLEANS: Final = {  # .NET writes True and False, JSON true and false, people the rest
    **dict[str, bool].fromkeys(("true", "1", "yes", "y", "on"), True),
    **dict[str, bool].fromkeys(("false", "0", "no", "n", "off"), False),
}
_INT64: Final = range(-(2**63), 2**63)  # what .NET calls a long
_DECIMAL: Final = rf"[+-]?(?:{NUMBER})(?:e[+-]?\d+)?"
_DASHED: Final = r"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"
# As .NET writes a Guid: D, B, P and N; and as a URN.
_UUID: Final = rf"(?:urn:uuid:)?{_DASHED}|\{{{_DASHED}\}}|\({_DASHED}\)|([0-9a-f]{{32}})"


def _utf8(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate cannot travel; UnicodeEncodeError is a ValueError
    return str(value)


def _boolean(given: Any) -> bool:
    return given if isinstance(given, bool) else _BOOLEANS[str(given).strip().casefold()]


def _whole(given: Any) -> int:
    if type(given) is int:
        return given
    value = _decimal(given)
    # The range comes first: the digits of 1e999999 are more than anybody waits for.
    if not _INT64.start <= value < _INT64.stop or value != value.to_integral_value():
        raise ValueError
    return int(value)


def _number(given: Any) -> float:
    return given if type(given) is float else float(_decimal_text(given))


def _decimal_text(given: Any) -> str:
    text = _numeral(given).strip()
    if not re.fullmatch(_DECIMAL, text, re.ASCII | re.IGNORECASE):
        raise ValueError
    return text


def _decimal(given: Any) -> Decimal:
    try:
        return Decimal(_decimal_text(given))
    except InvalidOperation:  # an exponent that no Decimal has
        raise ValueError from None


def _numeral(given: Any) -> str:
    """Return the text of a text or a number."""
    if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
        raise TypeError
    return given if isinstance(given, str) else str(given)


def _path(given: Any) -> Path:
    # An empty path would mean the working directory, which is not a plugin's to choose.
    if not isinstance(given, str | Path) or given == "" or "\0" in str(given):
        raise ValueError
    return Path(_utf8(str(given)))


def _uuid(given: Any) -> UUID:
    # `UUID` itself drops braces, hyphens and underscores wherever they are, and takes digits of any script.
    if not (found := re.fullmatch(_UUID, _utf8(given).strip(), re.IGNORECASE)):
        raise ValueError
    return UUID("".join(filter(None, found.groups())))


def _bytes(given: Any) -> bytes:
    return binascii.a2b_base64(_utf8(given).encode("ascii").strip(), strict_mode=True) if given else b""


def _exactly(base: type) -> Callable[[Any], Any]:
    """Return a check for values of one type that is immutable."""

    def check(value: Any) -> Any:
        if type(value) is not base:
            raise TypeError
        return value

    return check


def _long(value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        raise ValueError
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _finite_decimal(value: Any) -> Decimal:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError
    return Decimal(value)


def _only_path(value: Any) -> Path:
    if not isinstance(value, Path):
        raise TypeError
    return _path(value)


def _size(value: Any) -> Size:
    if not isinstance(value, int):  # a text is for `load`
        raise TypeError
    return Size(value)


def _secret(given: Any) -> Secret:
    return Secret(_utf8(given.reveal() if isinstance(given, Secret) else given))


def _reader(base: type) -> Callable[[Any], Any]:
    return lambda given: READERS[base](_utf8(given))


SCALARS: Final[Mapping[Any, Kind]] = {
    kind.base: kind
    for kind in (
        Kind(str, "text", _utf8, _utf8),
        Kind(Secret, "text", _secret, _secret, secret=True),
        Kind(bool, "true or false", _boolean, _exactly(bool)),
        Kind(int, "a whole number", _whole, _long),
        Kind(float, "a number", _number, _finite),
        Kind(Decimal, "a decimal number", _decimal, _finite_decimal),
        Kind(Path, "a path", _path, _only_path),
        Kind(UUID, "a UUID", _uuid, _exactly(UUID)),
        Kind(bytes, "base64 text", _bytes, _exactly(bytes)),
        Kind(Size, "a size as in 64KiB or 10MB", lambda given: Size(_numeral(given)), _size),
        Kind(
            timedelta,
            "a duration as in 5s or 1h30m",
            lambda given: READERS[timedelta](_numeral(given)),
            checked_duration,
        ),
        Kind(datetime, "a date and time (ISO 8601)", _reader(datetime), checked_moment),
        Kind(date, "a date as in 2026-01-31", _reader(date), checked_date),
        Kind(time, "a time of day as in 08:30", _reader(time), checked_time),
    )
}
"""By the class of the annotation."""
