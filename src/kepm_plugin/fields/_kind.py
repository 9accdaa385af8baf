"""`Kind`: one kind of value, how it is read and checked; and how one is read where the agent has opened it.

How the agent flattens arrays and objects of a plugin's file is not documented. A kind with parts is therefore read from
JSON text at its key, or from keys below it: `hosts.0`, or `hosts:0` as .NET's configuration has it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import Struct

FAILURES: Final = (ValueError, TypeError, LookupError, RecursionError, ArithmeticError)
"""What reading and checking raise where a value breaks the rule."""


class Unfit(ValueError):
    """A value breaks a rule for a reason that the rule does not tell. The text says it, and may quote the value."""


_SEPARATOR: Final = re.compile("[.:]")
_INDEX: Final = re.compile(r"0|[1-9]\d{0,5}", re.ASCII)


class Items(Struct, frozen=True):
    """The parts of a list: numbered from 0; the kinds of the first ones, the last being that of all others too."""

    kinds: tuple["Kind", ...]

    def at(self, index: str) -> "Kind | None":
        """Return the kind of a part; None where the text is no index."""
        return self.kinds[min(int(index), len(self.kinds) - 1)] if self.kinds and _INDEX.fullmatch(index) else None


class Entries(Struct, frozen=True):
    """The parts of a dict, all of one kind, by names that nobody knows before."""

    kind: "Kind"


class Members(Struct, frozen=True):
    """The parts of an object: by their names, casefolded, each with its name in JSON and its kind."""

    kinds: Mapping[str, tuple[str, "Kind"]]


Parts: TypeAlias = Items | Entries | Members


class Kind(Struct, frozen=True):
    """One kind of value.

    `load` makes a value of what stands at the agent, text, or of a value in JSON; `check` makes a value fit for a
    snapshot: a copy that nobody else holds, and that is equal once it was written and read. Both raise `FAILURES`.
    """

    base: Any  # the annotation's class, `Literal` for any choice
    rule: str  # follows "must be"
    load: Callable[[Any], Any]
    check: Callable[[Any], Any]
    parts: Parts | None = None
    optional: bool = False
    secret: bool = False  # a `Secret` is in it

    def loaded(self, given: Any) -> Any:
        """Return what text or JSON means; None is null, or text without a meaning of its own that says so."""
        if given is None and self.optional:
            return None
        try:
            return self.load(given)
        except FAILURES:
            if self.optional and isinstance(given, str) and (not given or given.strip().casefold() == "null"):
                return None
            raise

    def checked(self, value: Any) -> Any:
        """Return a value as a snapshot holds it."""
        return None if value is None and self.optional else self.check(value)


def part(name: str, kind: Kind, read: Callable[[Any], Any], given: Any) -> Any:
    """Read or check one part of a value; raise `Unfit` that names it where it breaks the rule of its kind."""
    try:
        return read(given)
    except FAILURES as error:
        reason = f" ({error})" if isinstance(error, Unfit) else ""
        raise Unfit(f"{name} must be {kind.rule}{reason}") from None


def opens(kind: Kind, rest: str) -> bool:
    """Tell whether a key that goes on below a kind's own is one of its parts; `""` is the key itself."""
    if not rest or kind.parts is None:
        return not rest
    if isinstance(kind.parts, Entries) and kind.parts.kind.parts is None:
        return True
    name, below = _split(rest)
    inner = _inner(kind.parts, name)
    return inner is not None and opens(inner[1], below)


def gathered(kind: Kind, texts: Mapping[str, str]) -> Any:
    """Return JSON for the texts of a kind's parts, by what their keys have below its own; `load` reads it.

    Every key must be one that `opens` accepts. A text at a key counts before those below that key.

    Raises:
        ValueError: A list has gaps, or a part two texts.
    """
    if kind.parts is None or "" in texts:
        return texts[""]
    if isinstance(kind.parts, Entries) and kind.parts.kind.parts is None:
        return dict(texts)
    groups: dict[str, dict[str, str]] = {}
    kinds: dict[str, Kind] = {}
    for rest, text in texts.items():
        name, below = _split(rest)
        if (inner := _inner(kind.parts, name)) is None:
            raise ValueError(f"{name} is none of the parts")
        spelt, kinds[inner[0]] = inner
        if groups.setdefault(spelt, {}).setdefault(below, text) != text:
            raise Unfit(f"{spelt} has several values")
    found = {name: gathered(kinds[name], group) for name, group in groups.items()}
    if not isinstance(kind.parts, Items):
        return found
    if set(found) != {str(index) for index in range(len(found))}:
        raise Unfit("the numbers of the items have gaps, or do not begin with 0")
    return [found[str(index)] for index in range(len(found))]


def _split(rest: str) -> tuple[str, str]:
    name, *below = _SEPARATOR.split(rest, maxsplit=1)
    return name, below[0] if below else ""


def _inner(parts: Parts, name: str) -> tuple[str, Kind] | None:
    match parts:
        case Items():
            kind = parts.at(name)
            return None if kind is None else (name, kind)
        case Entries():
            return name, parts.kind
        case Members():
            return parts.kinds.get(name.casefold())
