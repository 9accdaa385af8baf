"""A snapshot as the agent holds it, and the difference of two."""

from operator import attrgetter
from typing import TypeVar

from kepm_plugin.fields import Scalar, encode

from ._class import Settings, leaves_of
from ._lookup import is_carried

S = TypeVar("S", bound=Settings)


def flat(settings: Settings) -> dict[str, Scalar]:
    """Return a snapshot as the agent holds it: each key with the value that a PUT carries, in the order declared.

    The values of secrets are in it.
    """
    return {leaf.key: encode(attrgetter(leaf.name)(settings)) for leaf in leaves_of(type(settings))}


def difference(old: S, new: S) -> frozenset[str]:
    """Return the names of the attributes in which two snapshots of one class differ; a nested class is one."""
    keys = changed_keys(old, new)
    return frozenset(leaf.name.partition(".")[0] for leaf in leaves_of(type(new)) if leaf.key in keys)


def changed_keys(old: S, new: S) -> frozenset[str]:
    """Return the agent's keys for what differs between two snapshots of one class."""
    before, after = flat(old), flat(new)
    return frozenset(key for key in after if before[key] != after[key])


def manifest_defaults(settings: type[Settings]) -> dict[str, Scalar]:
    """Return the defaults that a manifest carries, by key; secrets, required settings and None have none there.

    They stand at the root of the plugin's file, which is one of the two places that the vendor allows (Plugin & Task
    Settings): there a key keeps its name, and a `SettingsUpdate` policy shows it beside the plugin's fields. Settings
    of a nested class are dotted keys of the root, too.
    """
    return {leaf.key: encode(leaf.default) for leaf in leaves_of(settings) if is_carried(leaf)}
