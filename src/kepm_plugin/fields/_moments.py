"""Durations, and points in time: their texts."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any, Final

from ._amounts import NUMBER, product
from ._kind import Unfit

_SECOND: Final = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND
_UNITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("us", "\N{GREEK SMALL LETTER MU}s", "microsecond", "microseconds"), 1),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1000),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), _SECOND),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
}
_LONGEST: Final = 100  # characters of a text


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern when it is first needed: most processes read no durations."""
    return re.compile(text.replace("N", NUMBER), re.ASCII | re.VERBOSE)


_PLAIN: Final = r"(N)(e[+-]?\d{1,2})?"
_PART: Final = r"\s*(N)\s*([a-z\u03bc]+)"
_PARTS: Final = r"(?:\s*(?:N)\s*[a-z\u03bc]+)+"
_ISO: Final = r"p (?:(N)w)? (?:(N)d)? (?:t (?:(N)h)? (?:(N)m)? (?:(N)s)?)?"
_CALENDAR: Final = r"^p[^t]* [ym] | \d \s* (?:y|yrs?|years?|mo|months?) (?![a-z])"
# [d.]hh:mm:ss[.fffffff], as .NET writes a TimeSpan, or with a colon after the days. Not hh:mm, which may be meant as
# mm:ss, and not 24 hours, which .NET itself reads as 24 days.
_CLOCK: Final = r"(?:(\d+)[.:])? ([01]?\d|2[0-3]) : ([0-5]?\d) : ([0-5]?\d(?:\.\d+)?)"


def duration(text: str) -> timedelta:
    """Return the duration that a text means, to the microsecond.

    `1h30m`, `10 min`, `250ms`, `2 days`; a plain number is seconds; ISO 8601 (`PT5M`), without years and months, whose
    length varies; a .NET TimeSpan (`00:05:00`, `1.02:03:04.5`). A minus in front makes any of them negative.

    Raises:
        ValueError: It is none of them; `Unfit` where it counts years or months.
        OverflowError: It is too long.
    """
    text = text.strip().casefold()
    if len(text) > _LONGEST:
        raise ValueError("the text of a duration is short")
    sign, text = (-1, text[1:].lstrip()) if text[:1] == "-" else (1, text.removeprefix("+").lstrip())
    return timedelta(microseconds=sign * _microseconds(text))


def _microseconds(text: str) -> int:
    if found := _pattern(_PLAIN).fullmatch(text):
        return product(found[1], _SECOND, found[2])[0]
    if found := _pattern(_CLOCK).fullmatch(text):
        return _total(found.groups(), (_DAY, _HOUR, _MINUTE, _SECOND))
    if _pattern(_CALENDAR).search(text):
        raise Unfit("years and months have no fixed length; count days")
    if text[-1:] not in ("p", "t") and (found := _pattern(_ISO).fullmatch(text)):
        return _total(found.groups(), (7 * _DAY, _DAY, _HOUR, _MINUTE, _SECOND))
    found_parts = _pattern(_PART).findall(text) if _pattern(_PARTS).fullmatch(text) else []
    parts = [(number, _UNITS.get(unit, 0)) for number, unit in found_parts]
    if len({unit for _, unit in parts if unit}) < max(len(parts), 1):
        raise ValueError("a duration is numbers and units, each unit once, as in 1h30m")
    return sum(product(number, unit)[0] for number, unit in parts)


def _total(numbers: tuple[str | None, ...], units: tuple[int, ...]) -> int:
    return sum(product(number, unit)[0] for number, unit in zip(numbers, units, strict=True) if number)


def duration_text(value: timedelta) -> str:
    """Return a duration as one would write it, losing nothing: `1h30m`, `2.5s`, `250ms`."""
    total = value // timedelta(microseconds=1)
    sign, total = ("-", -total) if total < 0 else ("", total)
    if 0 < total < _SECOND:
        return f"{sign}{total // 1000}ms" if total % 1000 == 0 else f"{sign}{total}us"
    text = ""
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        count, total = divmod(total, size)
        text += f"{count}{unit}" if count else ""
    if total or not text:
        text += f"{total // _SECOND}.{total % _SECOND:06}".rstrip("0").rstrip(".") + "s"
    return sign + text


def checked_duration(value: Any) -> timedelta:
    """Return a duration as it is; raise TypeError where it is none."""
    if not isinstance(value, timedelta):
        raise TypeError
    return timedelta(value.days, value.seconds, value.microseconds)


def checked_moment(value: Any) -> datetime:
    """Return a date and time fit for a snapshot: where it has a zone, in UTC, so that equal ones have equal texts."""
    if not isinstance(value, datetime):
        raise TypeError
    plain: datetime = datetime.combine(value.date(), value.timetz())  # of the standard class
    return plain.replace(fold=0) if plain.utcoffset() is None else plain.astimezone(UTC)


def checked_date(value: Any) -> date:
    """Return a date as it is; raise TypeError where it is none, or has a time."""
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return date(value.year, value.month, value.day)


def checked_time(value: Any) -> time:
    """Return a time of day as it is; raise where it is none, or has a zone, whose offset depends on the day."""
    if not isinstance(value, time) or value.tzinfo is not None:
        raise TypeError
    return time(value.hour, value.minute, value.second, value.microsecond)


READERS: Final[Mapping[type, Callable[[str], Any]]] = {
    timedelta: duration,
    datetime: lambda text: datetime.fromisoformat(text.strip()),
    date: lambda text: date.fromisoformat(text.strip()),
    time: lambda text: time.fromisoformat(text.strip()),
}
"""What a text means, by type."""
