"""`settings` of one plugin: what its code declares, and the framework's knobs. By the standard library alone."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from kepm_plugin.errors import SettingsError, UsageError
from kepm_plugin.fields import MASK
from kepm_plugin.plugin import Plugin
from kepm_plugin.settings import SettingField, Settings, leaves_of, read_key

from . import _letter_text as text

ABOUT: Final = "List the plugin's settings with their rules and defaults, and the framework's own."
JSON: Final = "As a JSON object."


VALUES: Final = "With --json: say, too, why the plugin would refuse the values in a JSON object on standard input."


def declared(kind: type[Plugin], values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what a plugin's code declares, as JSON: `id`, `settings` and `knobs`, each with key, type, rule, default.

    A default that is null is none: the setting is required, or the plugin does not have what a knob tunes. That of a
    secret is masked. Of `values`, as an agent hands them out, `refused` says which rule they break, if any.
    """
    from kepm_plugin.knobs import COUNTERS, Knobs, defaults

    given = kind.declarations().settings_type
    tuned = defaults(kind)
    said = {} if values is None else {"refused": _refused(given, values)}
    return said | {
        "id": kind.id,
        "settings": [_row(field) | _default(given, field) for field in leaves_of(given)],
        "knobs": [
            _row(field) | {"default": tuned[field.name], "counters": list(COUNTERS.get(field.name, ()))}
            for field in leaves_of(Knobs)
        ],
    }


def _refused(settings: type[Settings], values: Mapping[str, str]) -> str:
    from kepm_plugin.live import Reading

    try:
        Reading(settings).parse(values)
    except SettingsError as error:
        return str(error)
    return ""


def _row(field: SettingField) -> dict[str, Any]:
    return {"key": field.key, "type": field.type, "rule": field.rule, "description": field.description}


def _default(settings: type[Settings], field: SettingField) -> dict[str, Any]:
    value = read_key(settings, {}, field.key)
    shown = MASK if field.secret and value not in (None, "") else value
    return {"default": shown, "required": field.required, "secret": field.secret}


def print_declared(kind: type[Plugin], *, as_json: bool, values: bool) -> None:
    """Print them, as a table or as JSON; with `values`, which are read from standard input, also what is wrong there.

    Raises:
        UsageError: There is no JSON object of texts.
    """
    found = declared(kind, _read_values() if values else None)
    if as_json:
        text.say(json.dumps(found, indent=2))
        return
    rows = [("KEY", "DEFAULT", "RULE", "DESCRIPTION")]
    for row in (*found["settings"], *found["knobs"]):
        default = "(required)" if row.get("required") else "-" if row["default"] is None else as_text(row["default"])
        rows.append((row["key"], default, row["rule"], row["description"]))
    for line in columns(rows):
        text.say(line)


def _read_values() -> dict[str, str]:
    try:
        found: object = json.load(sys.stdin)
    except ValueError as exc:
        raise UsageError(f"--values: what comes on standard input is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise UsageError("--values: give a JSON object on standard input, as `settings get PLUGIN` prints it")
    return {str(key): str(value) for key, value in cast("dict[object, object]", found).items()}


def as_text(value: object) -> str:
    """Return a value as an operator writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines, each column as wide as it needs; nothing in them steers a terminal."""
    cells = [[text.visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def add_options(parser: ArgumentParser) -> None:
    """Add the options of `settings` to a plugin's own command line."""
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument("--values", action="store_true", help=VALUES)
