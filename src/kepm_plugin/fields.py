"""One setting: what its value may be, what the agent's text for it means, and how it is written back.

Knows nothing of classes of settings. A value that passes `SettingField.checked` survives the way to the agent and back.
"""

import enum
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, cast, get_args, get_origin

import msgspec

__all__ = ["MASK", "MISSING", "Kind", "Missing", "Scalar", "SettingField", "encode", "kind_of", "type_text"]

Scalar: TypeAlias = str | int | float | bool
"""What a PUT carries: a JSON string, number or boolean (HTTP Reference)."""


class Missing(enum.Enum):
    """The type of `MISSING`."""

    MISSING = "no default"


MISSING: Final = Missing.MISSING
"""Stands where a setting has no default: it must be set."""

MASK: Final = "***"
"""Stands where a secret was."""

_BOOLEANS: Final = {  # .NET writes True and False, JSON true and false, people the rest
    **dict[str, bool].fromkeys(("true", "1", "yes", "y", "on"), True),
    **dict[str, bool].fromkeys(("false", "0", "no", "n", "off"), False),
}
_COLLECTIONS: Final = (list, tuple, dict)
_INT64: Final = range(-(2**63), 2**63)  # what .NET calls a long
_SHOWN: Final = 80  # characters of a wrong value in an error


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    `read` makes a value of the agent's text, `check` makes a value fit for a snapshot. Both raise ValueError,
    TypeError, LookupError or RecursionError.
    """

    base: Any  # the annotation's class, `Literal` for any choice
    rule: str  # follows "must be"
    read: Callable[[str], Any]
    check: Callable[[Any], Any]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class _Limit:
    words: str
    holds: Callable[[Any, Any], bool]  # value, limit
    bases: tuple[type, ...]


_NUMBERS, _SIZED = (int, float), (str, *_COLLECTIONS)
LIMITS: Final[Mapping[str, _Limit]] = {
    "ge": _Limit("at least", lambda value, limit: value >= limit, _NUMBERS),
    "gt": _Limit("above", lambda value, limit: value > limit, _NUMBERS),
    "le": _Limit("at most", lambda value, limit: value <= limit, _NUMBERS),
    "lt": _Limit("below", lambda value, limit: value < limit, _NUMBERS),
    "min_length": _Limit("of a length of at least", lambda value, limit: len(value) >= limit, _SIZED),
    "max_length": _Limit("of a length of at most", lambda value, limit: len(value) <= limit, _SIZED),
    "pattern": _Limit("matching", lambda value, limit: re.fullmatch(limit, value) is not None, (str,)),
}
"""The constraints that `setting()` knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingField:
    """One setting as declared.

    `name` is the attribute, `key` the name at the agent, `type` the annotation as text, `default` the value or
    `MISSING`. `constraints` holds those that were given, by their names in `setting()`.
    """

    name: str
    key: str
    type: str
    default: Any = field(default=MISSING, repr=False)  # may be a secret
    secret: bool = False
    description: str = ""
    constraints: Mapping[str, Any] = field(default_factory=lambda: types.MappingProxyType({}))
    kind: Kind = field(repr=False)

    @property
    def required(self) -> bool:
        """Whether it must be set, because nothing stands in for it."""
        return self.default is MISSING

    @property
    def rule(self) -> str:
        """What a value must be, as a phrase that follows "must be"."""
        limits = (f"{LIMITS[name].words} {limit}" for name, limit in self.constraints.items())
        return ", ".join((self.kind.rule, *limits)) + (", or empty" if self.kind.optional else "")

    def checked(self, value: object) -> Any:
        """Return the value as a snapshot holds it; raise ValueError where it breaks the rule."""
        if self.kind.optional and (value is None or value == ""):
            return None
        try:
            value = self.kind.check(value)
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if not all(LIMITS[name].holds(value, limit) for name, limit in self.constraints.items()):
            raise ValueError(self.rule)
        return value

    def parsed(self, text: str) -> Any:
        """Return the value that the agent's text means; raise ValueError where it breaks the rule."""
        if self.kind.optional and (not text or (self.kind.base is not str and text.strip().casefold() == "null")):
            return None
        try:
            return self.checked(self.kind.read(text))
        except (LookupError, RecursionError) as error:
            raise ValueError(str(error)) from None

    def complaint(self, value: object) -> str:
        """Return what is wrong with a value, without the value where it is a secret."""
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}… ({len(shown)} characters)"
        return f"{self.key!r} must be {self.rule}" + ("" if self.secret else f", not {shown}")

    def texts(self, value: object) -> frozenset[str]:
        """Return a value as text, and the strings inside a collection: what must not be seen of a secret."""
        text = str(encode(value))
        inside = _strings(msgspec.json.decode(text)) if text and self.kind.base in _COLLECTIONS else set[str]()
        return frozenset({text} | inside) - {""}


def encode(value: object) -> Scalar:
    """Return a field's value as a PUT carries it; parsing its text gives an equal value back.

    None is the empty string, an enum's member its value; a path and a collection (as JSON) are text.
    """
    if value is None:
        return ""
    if isinstance(value, enum.Enum):
        return cast("str | int", value.value)
    if isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, Path) else msgspec.json.encode(value, enc_hook=_to_json).decode()


def kind_of(annotation: Any) -> Kind:
    """Return the kind of an annotation; raise TypeError with what is wrong where it has none."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError("a union other than `X | None`")
        return replace(kind_of(inner[0]), optional=True)
    base = get_origin(annotation) or annotation
    if base in _COLLECTIONS:
        return _collection(base, annotation)
    if base is Literal:
        return _choice(get_args(annotation))
    if isinstance(base, type) and issubclass(base, enum.Enum) and not issubclass(base, enum.Flag):
        return _choice(tuple(base))
    if base in _SCALARS:
        return _SCALARS[base]
    raise TypeError("an unknown type")


def type_text(annotation: Any) -> str:
    """Return an annotation as one would write it: `int`, `list[str] | None`."""
    plain = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return re.sub(r"(?:\w+\.|<locals>\.)+(?=\w)", "", plain)


def _utf8(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate cannot travel; UnicodeEncodeError is a ValueError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        raise ValueError
    return value


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _path(value: Any) -> Path:
    # An empty path would mean the working directory, which is not a plugin's to choose.
    if not isinstance(value, str | Path) or value == "" or "\0" in str(value):
        raise ValueError
    return Path(_utf8(str(value)))


def _path_only(value: Any) -> Path:
    if not isinstance(value, Path):
        raise TypeError
    return _path(value)


def _read_whole(text: str) -> int:
    return msgspec.convert(text.strip(), int, strict=False)


def _read_number(text: str) -> float:
    return msgspec.convert(text.strip(), float, strict=False)


_SCALARS: Final[Mapping[Any, Kind]] = {
    str: Kind(str, "text", str, _utf8),
    bool: Kind(bool, "true or false", lambda text: _BOOLEANS[text.strip().casefold()], _boolean),
    int: Kind(int, "a whole number", _read_whole, _whole),
    float: Kind(float, "a number", _read_number, _finite),
    Path: Kind(Path, "a path", _path, _path_only),
}


def _choice(values: tuple[Any, ...]) -> Kind:
    plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
    options = dict(zip(map(str, plain), values, strict=True))
    if not options or not all(type(value) in (str, int) for value in plain) or "" in options:
        raise TypeError("choices other than whole numbers and strings that are not empty")
    if len(options) < len(values):
        raise TypeError("two choices with the same text")

    def read(text: str) -> Any:
        if text in options:
            return options[text]
        (only,) = (value for key, value in options.items() if key.casefold() == text.strip().casefold())
        return only

    def check(value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in options.values()):
            raise ValueError
        return value

    return Kind(Literal, "one of " + ", ".join(options), read, check)


def _collection(base: type, annotation: Any) -> Kind:
    _refuse_elements(annotation)
    decoder = msgspec.json.Decoder[Any](annotation, dec_hook=_from_json)

    def check(value: Any) -> Any:
        if not isinstance(value, base):
            raise TypeError
        # Through JSON and back: the result is a copy, and equal only where nothing is lost on the way to the agent.
        copied = decoder.decode(msgspec.json.encode(value, enc_hook=_to_json))
        if copied != value:
            raise ValueError
        return copied

    return Kind(base, f"JSON text of a {type_text(annotation)}", decoder.decode, check)


def _refuse_elements(annotation: Any) -> None:
    base, args = get_origin(annotation) or annotation, get_args(annotation)
    if base is tuple and (len(args) != 2 or args[1] is not Ellipsis):
        raise TypeError("a tuple other than `tuple[X, ...]`")
    if base is dict and args and args[0] is not str:
        raise TypeError("a dict whose keys are no strings")
    if base in (*_COLLECTIONS, Union, types.UnionType, Annotated):
        for arg in args[:1] if base is Annotated else args:
            _refuse_elements(arg)
    elif base not in (Any, object, type(None), Ellipsis):
        kind_of(annotation)


def _to_json(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError


def _from_json(annotation: Any, value: Any) -> Any:
    return _path(value) if annotation is Path else value


def _strings(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    return set[str]().union(*map(_strings, cast("list[object]", value))) if isinstance(value, list) else set()
