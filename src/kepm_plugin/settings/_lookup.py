"""What the agent's strings have for one key: as written, in another casing, under an alias, or in parts below it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from kepm_plugin.errors import SettingsError
from kepm_plugin.fields import MISSING, SettingField, encode, opens


class Found(Struct, frozen=True):
    """A setting's value, and the declared key or alias that it is from; None: it is the default, which may be missing.

    Where neither is there, the value is `MISSING`.
    """

    key: str | None
    value: Any


def found(leaf: SettingField, values: Mapping[str, str]) -> Found:
    """Return what counts for a setting.

    The key counts before its aliases, but for one case: the agent hands out the default of the plugin's file as if it
    were set, so a key that has just that does not hide a value under an alias, which somebody must have set.

    Raises:
        SettingsError: The text that counts breaks the rule, or there are several.
    """
    value = sought(leaf, leaf.key, values)
    if value is MISSING or (is_carried(leaf) and encode(value) == encode(leaf.default)):
        for alias in leaf.aliases:
            if (older := sought(leaf, alias, values)) is not MISSING:
                return Found(alias, older)
    return Found(None, leaf.default) if value is MISSING else Found(leaf.key, value)


def is_carried(leaf: SettingField) -> bool:
    """Tell whether a manifest carries the default of a setting."""
    return not (leaf.required or leaf.secret or leaf.default is None)


def sought(leaf: SettingField, key: str, values: Mapping[str, str]) -> Any:
    """Return the value under one of a setting's keys, `MISSING` where there is none.

    Raises:
        SettingsError: The text breaks the rule, or there are several.
    """
    spelt = [key] if key in values else [one for one in values if folded(one) == folded(key)]
    texts = {values[one] for one in spelt}
    below = {one: rest for one in values if (rest := below_key(leaf, key, one))}
    parts = {rest: values[one] for one, rest in below.items()}
    if len(texts) > 1:
        raise _several(leaf, spelt)
    if any(parts[rest] != values[one] for one, rest in below.items()):
        raise _several(leaf, below)
    # What has opened an object may leave empty text at its own key; where the setting is optional, that means None.
    if parts and not any(text.strip() or leaf.kind.optional for text in texts):
        return _read(leaf, key, parts, lambda: leaf.assembled(parts))
    if not texts:
        return MISSING
    (text,) = texts
    return _read(leaf, key, text, lambda: leaf.parsed(text))


def below_key(leaf: SettingField, key: str, given: str) -> str:
    """Return what a given key has below one of a setting's keys, where that is one of the setting's parts."""
    at, rest = given[: len(key)], given[len(key) + 1 :]
    is_below = given[len(key) : len(key) + 1] in (".", ":") and folded(at) == folded(key)
    return rest if is_below and rest and opens(leaf.kind, rest) else ""


def folded(key: str) -> str:
    """Return a key for comparison: any casing, and colons, as .NET's configuration has them, for dots."""
    return key.casefold().replace(":", ".")


def _several(leaf: SettingField, spelt: Iterable[str]) -> SettingsError:
    problem = f"{leaf.key!r} has several values, under {', '.join(sorted(spelt))}"
    return SettingsError(problem, key=leaf.key, rule=leaf.rule)


def _read(leaf: SettingField, key: str, given: object, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ValueError as error:
        where = "" if key == leaf.key else f" (it is set as {key!r})"
        raise SettingsError(leaf.complaint(given, error) + where, key=leaf.key, rule=leaf.rule) from None
