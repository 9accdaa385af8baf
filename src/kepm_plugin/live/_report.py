"""What is published of the settings: values and defaults, secrets masked, and what stands in the way of others."""

import time
from typing import Final

from kepm_plugin.contract import Contract
from kepm_plugin.errors import SettingsError
from kepm_plugin.fields import MASK
from kepm_plugin.settings import Settings, aliased_keys, flat, unknown_keys

from ._reading import Reading, Texts
from ._record import Intent

MOST_UNKNOWN: Final = 100
"""Names of unknown keys that are told."""


def report(
    contract: Contract,
    reading: Reading,
    snapshot: Settings,
    values: Texts,
    refused: SettingsError | None,
    intent: Intent | None,
) -> dict[str, object]:
    """Return the body for `<Id>/Status/settings`.

    Args:
        contract: Its form.
        reading: The class.
        snapshot: What is in force.
        values: The agent's texts.
        refused: Why these are not in force.
        intent: The transaction that is open.
    """
    settings: dict[str, dict[str, object]] = {}
    for key, value in flat(snapshot).items():
        default = reading.now({}, key)
        if key in reading.secret:
            settings[key] = {"value": MASK, "default": None if default is None else MASK}
        else:
            settings[key] = {"value": value, "default": default}
    told: dict[str, object] | None = None
    if refused is not None:
        known = refused.key in reading.keys and refused.key not in reading.secret
        told = {
            "key": refused.key or None,
            "rule": refused.rule,
            "value": reading.text(values, refused.key) if known else None,
            "reason": str(refused),
        }
    return contract.settings_report(
        settings=settings,
        unknown=unknown_keys(reading.kind, values)[:MOST_UNKNOWN],
        renamed=dict(aliased_keys(reading.kind, values)),
        refused=told,
        transaction=None if intent is None else {"aim": intent.aim, "keys": [step.key for step in intent.steps]},
        time=time.time(),
    )
