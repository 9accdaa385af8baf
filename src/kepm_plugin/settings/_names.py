"""Which keys settings may have at the agent."""

from collections.abc import Sequence
from typing import Final

from kepm_plugin.contract import RESERVED_SETTING_PREFIX, REVERT, STATUS
from kepm_plugin.fields import SettingField

from ._lookup import below_key, folded

REFUSED_KEYS: Final = frozenset(
    {"id", "name", "description", "version", "plugintype", "executablepath", "arguments", "supportedplatforms"}
    | {"subscription", "metadata", "mqttrole", "mqtttopics", "startuppriority", "autostart", "executioncontext"}
    | {"requiresmonitoring", "autorestart", STATUS, REVERT}
)
"""Fields of a plugin's JSON, where settings stand beside them (Plugin Guide), and paths of the settings API."""

_REMEDY: Final = "choose another with setting(key=...)"


def check_keys(leaves: Sequence[SettingField], *, reserved: bool, nested: bool) -> None:
    """Raise ValueError, whose text begins with the setting's name, for a key or alias that cannot be one.

    Args:
        leaves: The settings of one class.
        reserved: They, and only they, begin with `kepm.`.
        nested: They only ever stand below another key.
    """
    taken: dict[str, SettingField] = {}
    for leaf in leaves:
        for key in (leaf.key, *leaf.aliases):
            what = "key" if key == leaf.key else "alias"
            if reason := _reason(key, reserved=reserved, nested=nested):
                raise ValueError(f"{leaf.name} has the {what} {key!r}, which {reason}; {_REMEDY}")
            if (twin := taken.setdefault(folded(key), leaf)) is not leaf:
                raise ValueError(
                    f"{leaf.name} has the {what} {key!r}, as {twin.name} has; give one of them another key"
                )
        if len({folded(key) for key in (leaf.key, *leaf.aliases)}) <= len(leaf.aliases):
            raise ValueError(f"{leaf.name} has one key twice, {leaf.key!r} and its aliases; leave one out")
    for leaf in leaves:
        for key in (leaf.key, *leaf.aliases) if leaf.kind.parts is not None else ():
            for other in leaves:
                if part := next((one for one in (other.key, *other.aliases) if below_key(leaf, key, one)), None):
                    raise ValueError(
                        f"{other.name} has the key {part!r}, which is also a part of {leaf.name} ({key!r}); {_REMEDY}"
                    )


def _reason(key: str, *, reserved: bool, nested: bool) -> str:
    ours = key.casefold().startswith(RESERVED_SETTING_PREFIX)
    if key in ("", ".", "..") or not key.isprintable() or set(key) & set(" /?#%\\"):
        return "is no part of a path: a key is not empty, and has no space, control character, or one of / ? # % \\"
    if nested:
        return ""
    if folded(key) in REFUSED_KEYS:
        return (
            "is a field of the plugin's JSON or a path of the settings API (a class that only stands in others is "
            "declared with `nested=True`, and free of that)"
        )
    if ours and not reserved:
        return f"begins with {RESERVED_SETTING_PREFIX}, which marks the framework's own"
    if reserved and not ours:
        return f"does not begin with {RESERVED_SETTING_PREFIX}"
    return ""
