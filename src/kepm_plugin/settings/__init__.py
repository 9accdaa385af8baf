"""Typed settings: declared as a class, parsed from the agent's flat strings into one frozen snapshot.

The agent hands out every value as a string (HTTP Reference). This package knows how a class declares settings, how a
snapshot comes to be and how two of them differ. It asks nobody for values and keeps none.
"""

from kepm_plugin.fields import MISSING, Missing, Scalar, Secret, SettingField, Size, encode

from ._class import Change, Settings, fields_of, is_nested, leaves_of, secrets_of
from ._declaration import nested_in
from ._keys import aliased_keys, declares, read_key, secret_keys, standing_aliases, unknown_keys
from ._names import REFUSED_KEYS
from ._setting import Limit, setting
from ._snapshot import changed_keys, difference, flat, manifest_defaults

__all__ = [
    "MISSING",
    "REFUSED_KEYS",
    "Change",
    "Limit",
    "Missing",
    "Scalar",
    "Secret",
    "SettingField",
    "Settings",
    "Size",
    "aliased_keys",
    "changed_keys",
    "declares",
    "difference",
    "encode",
    "fields_of",
    "flat",
    "is_nested",
    "leaves_of",
    "manifest_defaults",
    "nested_in",
    "read_key",
    "secret_keys",
    "secrets_of",
    "setting",
    "standing_aliases",
    "unknown_keys",
]
