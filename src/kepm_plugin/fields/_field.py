"""`SettingField`: one setting as declared, with its limits and what it makes of the agent's text."""

import enum
import re
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct, field

from ._kind import FAILURES, Kind, Unfit, gathered
from ._secret import Secret
from ._sizes import Size
from ._texts import encode, shortened, strings, tree

_REASON: Final = 200  # characters of a reason in an error


class Missing(enum.Enum):
    """The type of `MISSING`."""

    MISSING = "no default"


MISSING: Final = Missing.MISSING
"""Stands where a setting has no default: it must be set."""


class _Limit(Struct, frozen=True):
    words: str
    holds: Callable[[Any, Any], bool]  # value, limit
    bases: tuple[type, ...]


_ORDERED: Final = (int, float, Decimal, Size, timedelta, datetime, date, time)
_SIZED: Final = (str, Secret, bytes, list, tuple, set, frozenset, dict)
LIMITS: Final[Mapping[str, _Limit]] = {
    "ge": _Limit("at least", lambda value, limit: value >= limit, _ORDERED),
    "gt": _Limit("above", lambda value, limit: value > limit, _ORDERED),
    "le": _Limit("at most", lambda value, limit: value <= limit, _ORDERED),
    "lt": _Limit("below", lambda value, limit: value < limit, _ORDERED),
    "min_length": _Limit("of a length of at least", lambda value, limit: len(value) >= limit, _SIZED),
    "max_length": _Limit("of a length of at most", lambda value, limit: len(value) <= limit, _SIZED),
    "pattern": _Limit("matching", lambda value, limit: re.fullmatch(limit, _plain(value)) is not None, (str, Secret)),
}
"""The constraints that `setting()` knows."""


def limit(kind: Kind, name: str, given: Any) -> Any:
    """Return a constraint's limit as values are compared with it: `ge="1s"` is a duration.

    Raises:
        ValueError: It is no limit of this kind, with the reason.
    """
    if name == "pattern":
        try:
            re.compile(given)
        except (re.error, TypeError) as error:
            raise ValueError(f"has a pattern that is no regular expression: {error}") from None
        return given
    plain = kind.base in (int, float) or name.endswith("_length")
    try:
        if plain and (isinstance(given, bool) or not isinstance(given, int | float)):
            raise TypeError
        if plain:
            return given
        return kind.check(given if isinstance(given, kind.base) else kind.load(given))
    except FAILURES:
        rule = "a number" if plain else kind.rule
        raise ValueError(f"has the limit {name}={given!r}, which is not {rule}") from None


class SettingField(Struct, frozen=True, kw_only=True):
    """One setting as declared.

    `name` is the attribute, `key` the name at the agent, `type` the annotation as text, `default` the value or
    `MISSING`. Of a setting in a nested class, as `leaves_of` has it, `name` and `key` are dotted. `aliases` are further
    keys that it is read from. `constraints` holds those that were given, by their names in `setting()`.
    """

    name: str
    key: str
    type: str
    default: Any = MISSING
    secret: bool = False
    whole: bool = True  # all of it is the secret; otherwise only each `Secret` in it
    description: str = ""
    aliases: tuple[str, ...] = ()
    constraints: Mapping[str, Any] = field(default_factory=lambda: types.MappingProxyType({}))
    kind: Kind

    def __repr__(self) -> str:  # without the default, which may be a secret
        return f"SettingField(name={self.name!r}, key={self.key!r}, type={self.type!r}, secret={self.secret!r})"

    @property
    def required(self) -> bool:
        """Whether it must be set, because nothing stands in for it."""
        return self.default is MISSING

    @property
    def rule(self) -> str:
        """What a value must be, as a phrase that follows "must be"."""
        limits = (f"{LIMITS[name].words} {encode(given)}" for name, given in self.constraints.items())
        return ", ".join((self.kind.rule, *limits)) + (", or empty" if self.kind.optional else "")

    def checked(self, value: object) -> Any:
        """Return the value as a snapshot holds it; raise ValueError where it breaks the rule, `Unfit` with a reason."""
        if self.kind.optional and (value is None or (isinstance(value, str | bytes | Secret) and not value)):
            return None  # the agent has empty text for either
        try:
            value = self.kind.check(value)
            if all(LIMITS[name].holds(value, given) for name, given in self.constraints.items()):
                return value
        except FAILURES as error:
            raise _told(error) from None
        raise ValueError(self.rule)

    def parsed(self, text: str) -> Any:
        """Return the value that the agent's text means; raise ValueError where it breaks the rule."""
        try:
            return self.checked(self.kind.loaded(text))
        except FAILURES as error:
            raise _told(error) from None

    def assembled(self, texts: Mapping[str, str]) -> Any:
        """Return the value that the texts of its parts mean, by their keys below its own; raise as `parsed` does."""
        try:
            return self.checked(self.kind.loaded(gathered(self.kind, texts)))
        except FAILURES as error:
            raise _told(error) from None

    def complaint(self, value: object, error: ValueError) -> str:
        """Return what is wrong with a value, without the value and the error's reason where it is a secret."""
        if self.secret:
            return f"{self.key!r} must be {self.rule}"
        reason = f" ({str(error)[:_REASON]})" if isinstance(error, Unfit) else ""
        return f"{self.key!r} must be {self.rule}, not {shortened(value)}{reason}"

    def texts(self, value: object) -> frozenset[str]:
        """Return what must not be seen of a secret: the value as text, and the texts in it.

        Where only a `Secret` inside makes it one, what stands beside that may be seen.
        """
        found = tree(value)
        inside = strings(found, secrets_only=not self.whole)
        return frozenset({str(encode(value)), *inside}) - {""}


def _told(error: Exception) -> ValueError:
    return error if isinstance(error, Unfit) else ValueError(str(error))


def _plain(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
