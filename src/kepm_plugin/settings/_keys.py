"""The agent's keys: which are declared, which are not, and what one of them means."""

from collections.abc import Mapping

from kepm_plugin.contract import RESERVED_SETTING_PREFIX
from kepm_plugin.errors import SettingsError
from kepm_plugin.fields import MISSING, Scalar, SettingField, encode

from ._class import Settings, leaves_of
from ._lookup import below_key, folded, found, is_carried, sought


def secret_keys(settings: type[Settings]) -> frozenset[str]:
    """Return the agent's keys whose values must not be seen, their aliases among them."""
    return frozenset(key for leaf in leaves_of(settings) if leaf.secret for key in (leaf.key, *leaf.aliases))


def read_key(settings: type[Settings], values: Mapping[str, str], key: str) -> Scalar | None:
    """Return what the agent's strings mean for one key, as `flat` gives it: equal where the values are equal.

    A key that is not there counts with its default; None: it is required, and not there.

    Raises:
        SettingsError: The text breaks the key's rule, or the key has several values.
    """
    value = found(_leaf(settings, key), values).value
    return None if value is MISSING else encode(value)


def unknown_keys(settings: type[Settings], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys, sorted, that the class does not declare; the framework's own (`kepm.`) are not among them.

    Declared are also aliases, and the parts of a setting: `hosts.0` where `hosts` is a list.
    """
    given = (key for key in values if not key.casefold().startswith(RESERVED_SETTING_PREFIX))
    return tuple(sorted(key for key in given if not declares(settings, key)))


def declares(settings: type[Settings], key: str) -> bool:
    """Tell whether a key, as the agent has it, is one of the class, an alias, or a part below either."""
    return any(
        folded(key) == folded(one) or below_key(leaf, one, key)
        for leaf in leaves_of(settings)
        for one in (leaf.key, *leaf.aliases)
    )


def aliased_keys(settings: type[Settings], values: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return each alias that a value was taken from, with the key that should be used: what an operator is told.

    A setting whose text breaks its rule is not among them.
    """
    used: list[tuple[str, str]] = []
    for leaf in leaves_of(settings):
        try:
            key = found(leaf, values).key
        except SettingsError:
            continue
        if key is not None and key != leaf.key:
            used.append((key, leaf.key))
    return tuple(used)


def standing_aliases(settings: type[Settings], values: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Return the aliases that would count again once a key is written with its default.

    Whoever writes that value to the key writes it to these, too; otherwise the old value comes back.
    """
    leaf = _leaf(settings, key)
    return tuple(alias for alias in leaf.aliases if is_carried(leaf) and _stands(leaf, alias, values))


def _stands(leaf: SettingField, alias: str, values: Mapping[str, str]) -> bool:
    try:
        return sought(leaf, alias, values) is not MISSING
    except SettingsError:
        return True


def _leaf(settings: type[Settings], key: str) -> SettingField:
    (leaf,) = (leaf for leaf in leaves_of(settings) if leaf.key == key)
    return leaf
