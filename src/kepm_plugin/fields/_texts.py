"""Values as the agent carries them: text, whole numbers, numbers and booleans; what has parts is JSON text."""

import base64
import enum
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import msgspec

from ._moments import duration_text
from ._secret import Secret
from ._sizes import Size

Scalar: TypeAlias = str | int | float | bool
"""What a PUT carries: a JSON string, number or boolean (HTTP Reference)."""

_SHOWN: Final = 80  # characters of a wrong value in an error
_WRITTEN_OUT: Final = 20  # zeros, at most, that a decimal number is written with


def encode(value: object) -> Scalar:
    """Return a field's value as a PUT carries it; parsing its text gives an equal value back.

    Equal values of one field are encoded alike. None is the empty string, an enum's member its value; durations and
    sizes have the unit that reads best; what has parts is JSON text, sets and dicts sorted. Secrets are in it.
    """
    found = tree(value)
    if isinstance(found, Secret):
        return found.reveal()
    if found is None:
        return ""
    return found if isinstance(found, str | int | float) else json_text(found)


def tree(value: object) -> object:
    """Return a value as JSON has it, but with its secrets as they are."""
    match value:
        case enum.Enum():
            return value.value
        case Size() | PurePath() | UUID():
            return str(value)
        case None | str() | int() | float() | Secret():
            return value
        case timedelta():
            return duration_text(value)
        case date() | time():
            return value.isoformat()
        case Decimal():
            return _decimal_text(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return _parts(value)


def _parts(value: object) -> object:
    if isinstance(value, Mapping):
        found = {key_text(key): tree(one) for key, one in cast("Mapping[object, object]", value).items()}
        return dict(sorted(found.items()))
    if isinstance(value, list | tuple):
        return [tree(one) for one in cast("list[object]", value)]
    if isinstance(value, set | frozenset):
        return sorted((tree(one) for one in cast("set[object]", value)), key=json_text)
    if isinstance(value, msgspec.Struct) or (is_dataclass(value) and not isinstance(value, type)):
        return {spelt: tree(getattr(value, name)) for name, spelt in members(type(value))}
    raise TypeError(f"{type(value).__name__} has no text form")


def members(owner: Any) -> Iterator[tuple[str, str]]:
    """Yield the names of the attributes of a `msgspec.Struct` or a dataclass, each with its name in JSON."""
    if issubclass(owner, msgspec.Struct):
        yield from ((one.name, one.encode_name) for one in msgspec.structs.fields(owner))
    else:
        yield from ((one.name, one.name) for one in fields(owner))


def key_text(key: object) -> str:
    """Return the key of a dict as JSON has it."""
    found = tree(key)
    return found if isinstance(found, str) else json_text(found)


def shortened(value: object) -> str:
    """Return the `repr` of a value for an error, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # it is very deep, or a number with more digits than Python prints
        return f"this {type(value).__name__}"
    return f"{text[:_SHOWN]}… ({len(text)} characters)" if len(text) > _SHOWN else text


def json_text(found: object) -> str:
    """Return a tree as JSON text, with its secrets."""
    return msgspec.json.encode(found, enc_hook=_revealed).decode()


def _revealed(found: object) -> str:
    if isinstance(found, Secret):
        return found.reveal()
    raise TypeError(f"{type(found).__name__} has no text form")


def _decimal_text(value: Decimal) -> str:
    sign, digits, exponent = value.as_tuple()
    if not value:
        return "0"
    text = "".join(map(str, digits)).lstrip("0")
    shorter = text.rstrip("0")
    exponent = cast("int", exponent) + len(text) - len(shorter)
    least = Decimal((sign, tuple(map(int, shorter)), exponent))
    return format(least, "f") if -_WRITTEN_OUT <= exponent <= _WRITTEN_OUT else str(least)


def strings(found: object, *, secrets_only: bool) -> Iterator[str]:
    """Yield the texts in a tree, the keys of its objects left out.

    Args:
        found: What `tree` returned.
        secrets_only: Yield the secrets, and nothing of what stands beside them.
    """
    if isinstance(found, Secret):
        yield found.reveal()
    elif isinstance(found, dict | list):
        inside = cast("dict[str, object]", found).values() if isinstance(found, dict) else cast("list[object]", found)
        for one in inside:
            yield from strings(one, secrets_only=secrets_only)
    elif not secrets_only and found is not None and not isinstance(found, bool):
        yield str(found)
