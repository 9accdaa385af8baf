"""Kinds of values that are chosen from a list, and of lists, tuples, sets and dicts of others."""

import enum
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal, cast

import msgspec

from ._kind import Entries, Items, Kind, Members, Unfit, part
from ._secret import Secret
from ._texts import key_text, shortened

COLLECTIONS: Final = (list, tuple, set, frozenset, dict)
_DEEPEST: Final = (
    64  # what System.Text.Json reads unless it is told otherwise; far less than Python's stack has room for
)
_JSON: Final = msgspec.json.Decoder(float_hook=Decimal)  # a float would lose digits of a decimal number


def choice(values: tuple[Any, ...], names: Mapping[str, Any]) -> Kind:
    """Return the kind of some strings and whole numbers, or of an enum's members, which can also be named.

    Raises:
        TypeError: A value is neither, or two have one text.
    """
    plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
    options = dict(zip(map(str, plain), values, strict=True))
    if not options or not all(type(value) in (str, int) for value in plain) or "" in options:
        raise TypeError("choices other than whole numbers and strings that are not empty")
    if len(options) < len(values):
        raise TypeError("two choices with the same text")
    if any("\ud800" <= letter <= "\udfff" for text in options for letter in text):
        raise TypeError("a choice that UTF-8 cannot carry")

    def load(given: Any) -> Any:
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise TypeError
        text = str(given)
        for table in (options, names):
            if text in table:
                return table[text]
            folded = [value for key, value in table.items() if key.casefold() == text.strip().casefold()]
            if len(folded) == 1:
                return folded[0]
        raise LookupError

    def check(value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in options.values()):
            raise ValueError
        return value

    return Kind(Literal, "one of " + ", ".join(options), load, check)


def anything() -> Kind:
    """Return the kind of whatever JSON has."""

    def check(value: Any) -> Any:
        _shallow(value)
        # Through JSON and back: the result is a copy, and equal only where nothing is lost on the way to the agent.
        copied: Any = msgspec.json.decode(msgspec.json.encode(value))
        if copied != value:
            raise ValueError
        return copied

    return Kind(object, "JSON", _shallow, check)


def _shallow(given: object, level: int = 0) -> object:
    """Return a copy of what JSON has, with its numbers as floats; raise where it is too deep."""
    if level >= _DEEPEST and isinstance(given, list | dict):
        raise Unfit(f"more than {_DEEPEST} levels of lists and objects")
    if isinstance(given, list):
        return [_shallow(one, level + 1) for one in cast("list[object]", given)]
    if isinstance(given, dict):
        return {key: _shallow(one, level + 1) for key, one in cast("dict[object, object]", given).items()}
    return float(given) if isinstance(given, Decimal) else given


def collection(base: type, text: str, kinds: tuple[Kind, ...], *, fixed: bool = False) -> Kind:
    """Return the kind of a list, a tuple or a set.

    Args:
        base: The class.
        text: The annotation, for the rule.
        kinds: The kinds of the items: the last one is that of all further ones, too.
        fixed: There are as many items as kinds.

    Raises:
        TypeError: The items of a set have no hash.
    """
    if base in (set, frozenset) and not all(map(_has_hash, kinds)):
        raise TypeError("a set of what has no hash")
    items = Items(kinds)

    def each(made: Callable[[list[Any]], Any], values: list[Any], what: str) -> Any:
        if fixed and len(values) != len(kinds):
            raise Unfit(f"{len(values)} items instead of {len(kinds)}")
        of_each = [kinds[min(n, len(kinds) - 1)] for n in range(len(values))]
        found = [
            part(f"item {n}", kind, getattr(kind, what), value)
            for n, (kind, value) in enumerate(zip(of_each, values, strict=True))
        ]
        if base in (set, frozenset) and len(set(cast("list[Hashable]", found))) < len(values):
            raise Unfit("an item comes twice")
        return made(found)

    def check(value: Any) -> Any:
        if type(value) is not base:
            raise TypeError
        return each(base, list(cast("list[Any]", value)), "checked")

    return Kind(
        base,
        f"JSON text of a {text}",
        lambda given: each(base, from_json(given, list), "loaded"),
        check,
        parts=items,
        secret=any(kind.secret for kind in kinds),
    )


def _has_hash(kind: Kind) -> bool:
    """Tell whether values of a kind can be in a set, as far as the annotation says."""
    base: Any = kind.base
    can = base.__hash__ is not None
    match kind.parts:
        case Items(kinds):
            inside = kinds if base is tuple else ()
        case Members(kinds):
            inside = tuple(one for _, one in kinds.values())
        case _:
            inside = ()
    settled = getattr(base, "__struct_config__", None)  # msgspec refuses only when it is asked for the hash
    changes = settled is not None and settled.eq and not settled.frozen
    return can and not changes and all(map(_has_hash, inside))


def table(text: str, key: Kind, value: Kind) -> Kind:
    """Return the kind of a dict.

    Raises:
        TypeError: The keys have parts, can be null, or are secret.
    """
    if key.parts is not None or key.optional or key.secret or key.base is object:
        raise TypeError("a dict whose keys are no plain values")

    def entry(name: Any, one: Any, what: str) -> tuple[Any, Any]:
        shown = shortened(name)
        return (
            part(f"the key {shown}", key, getattr(key, what), name),
            part(f"what {shown} has", value, getattr(value, what), one),
        )

    def unique(pairs: list[tuple[Any, Any]], count: int) -> dict[Any, Any]:
        found = dict(pairs)
        if len(found) < count:
            raise Unfit("a key comes twice")
        return found

    def load(given: Any) -> Any:
        raw: dict[Any, Any] = from_json(given, dict)
        return unique([entry(name, one, "loaded") for name, one in raw.items()], len(raw))

    def check(given: Any) -> Any:
        if type(given) is not dict:
            raise TypeError
        raw = cast("dict[object, object]", given)
        found = unique([entry(name, one, "checked") for name, one in raw.items()], len(raw))
        if len({key_text(name) for name in found}) < len(found):
            raise Unfit("two keys with the same text")
        return found

    return Kind(dict, f"JSON text of a {text}", load, check, parts=Entries(value), secret=value.secret)


def narrowed(kind: Kind, annotation: Any) -> Kind:
    """Return a kind whose values also fit what `msgspec.Meta` says in an annotation."""
    from_annotation = kind.check

    def check(value: Any) -> Any:
        found = from_annotation(value)
        revealed = found.reveal() if isinstance(found, Secret) else found
        try:
            msgspec.convert(revealed, annotation, dec_hook=as_it_is)
        except msgspec.ValidationError as error:
            raise Unfit(str(error)) from None
        return found

    msgspec.json.Decoder(annotation, dec_hook=as_it_is)  # TypeError where a limit is none of this type
    return Kind(kind.base, f"{kind.rule}, within the limits of its annotation", kind.load, check, kind.parts)


def as_it_is(_annotation: Any, value: Any) -> Any:
    """Tell msgspec that a value of a type that it does not know is right already."""
    return value


def from_json(given: Any, expected: type) -> Any:
    """Return an array or an object, which may still be JSON text; raise TypeError where it is another value."""
    try:
        found: Any = _JSON.decode(given) if isinstance(given, str) else given
    except msgspec.DecodeError as error:
        raise Unfit(str(error)) from None
    if not isinstance(found, expected):
        raise TypeError
    return found
