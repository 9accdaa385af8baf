"""`settings diff`: each key with what is stored, what the file holds, the code's default, and what is in force."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kepm_plugin.contract import RESERVED_SETTING_PREFIX
from kepm_plugin.errors import UsageError
from kepm_plugin.fields import MASK
from kepm_plugin.knobs import KEYS, Knobs, defaults, read
from kepm_plugin.plugin import Plugin
from kepm_plugin.spelling import nearest

from ._declared import as_text, columns

WITHIN: Final = 30.0
"""Seconds that a plugin's program has to say what it declares."""

_SHOWN: Final = 40  # characters of a value in the table
_OURS: Final = "kepm_plugin"
_SCRIPT: Final = "kepm-plugin"
_WORDS: Final = ("--json", "--values")
_LAST_GOOD: Final = "(last good)"


@dataclass(frozen=True, slots=True)
class Row:
    """One key. None stands where there is no value; a secret is masked."""

    key: str
    kind: str
    """`setting`, `knob` or `unknown`, which neither the code nor the framework declares."""
    storage: str | None
    file: str | None
    default: str | None
    effective: str | None
    """None, too, of a setting where the plugin refuses the values: then the last good one is in force."""
    differs: bool
    """Whether storage, file and default, where there, are not all the same."""
    required: bool = False
    refused: bool = False
    """Whether it is a knob that the plugin refuses: the default is in force then, or the last good value."""


def rows_of(
    layers: Mapping[str, Mapping[str, str]], declared: Mapping[str, Any] | None, knobs: Iterable[Mapping[str, Any]]
) -> list[Row]:
    """Put the layers side by side.

    Without the code nobody knows which settings are secret: what the file does not hold is masked then, as a manifest
    holds no secret.

    Args:
        layers: `stored` and `file`, by key.
        declared: What the code declares, as `declared()` returns it; None where that is not known.
        knobs: The framework's own, with their defaults.
    """
    stored, file = dict(layers["stored"]), dict(layers["file"])
    settings: list[dict[str, Any]] = [] if declared is None else declared["settings"]
    secret = [one["key"].casefold() for one in settings if one["secret"]]
    rows = [_declared_row(one, "setting", stored, file) for one in settings]
    if declared is not None and declared.get("refused"):
        rows = [replace(row, effective=None) for row in rows]
    tuned = [_declared_row(one, "knob", stored, file) for one in knobs]
    left = sorted({*stored, *file})
    ours = [key for key in left if key.casefold().startswith(RESERVED_SETTING_PREFIX)]
    for key in (key for key in left if key not in ours):
        kind = "setting" if declared is None else "unknown"
        hidden = key not in file if declared is None else bool(nearest(key.casefold(), secret))
        rows.append(_row(key, kind, stored.get(key), file.get(key), None, hidden=hidden))
    return rows + tuned + [_row(key, "unknown", stored.get(key), file.get(key), None, hidden=False) for key in ours]


def _declared_row(one: Mapping[str, Any], kind: str, stored: dict[str, str], file: dict[str, str]) -> Row:
    """Return a declared key's row, and take its values out of the layers: the agent finds keys in any casing."""
    key, default = one["key"], one["default"]
    return _row(
        key,
        kind,
        _taken(stored, key),
        _taken(file, key),
        None if default is None else as_text(default),
        hidden=bool(one.get("secret")),
        required=bool(one.get("required")),
    )


def _taken(layer: dict[str, str], key: str) -> str | None:
    spelt = [key] if key in layer else [one for one in layer if one.casefold() == key.casefold()]
    return [layer.pop(one) for one in spelt][-1] if spelt else None


def _row(
    key: str,
    kind: str,
    storage: str | None,
    file: str | None,
    default: str | None,
    *,
    hidden: bool,
    required: bool = False,
) -> Row:
    there = [value for value in (storage, file, default) if value is not None]
    differs = len({_meaning(value) for value in there if not (hidden and value == MASK)}) > 1
    if hidden:
        storage, file, default = (value and MASK for value in (storage, file, default))
    given = next((value for value in (storage, file) if value is not None), None)
    refused = kind == "knob" and given is not None and bool(read({key: given}, Plugin, Knobs()).refused)
    unset = given is None or refused or (kind == "knob" and given == "")
    return Row(key, kind, storage, file, default, default if unset else given, differs, required, refused)


def _meaning(value: str) -> str:
    """Return a text by which equal values are equal: the agent and Python spell some in two ways."""
    text = value.strip()
    if text.casefold() in ("true", "false"):
        return text.casefold()
    try:
        return f"{float(text):g}"
    except ValueError:
        return value


def knobs_of(declared: Mapping[str, Any] | None, level: str) -> list[dict[str, Any]]:
    """Return the framework's own settings with their defaults, as far as those are known.

    Args:
        declared: What the code declares; None where that is not known.
        level: What the agent says of the log level, or nothing.
    """
    values = defaults(Plugin)
    knobs = [{"key": key, "default": values[name]} for name, key in KEYS.items()]
    if declared is not None:
        knobs = declared["knobs"]
    return [one | {"default": level} if level and one["key"] == KEYS["log_level"] else one for one in knobs]


def table(rows: Iterable[Row], *, refused: bool = False) -> list[str]:
    """Return the lines of a table; a star marks what is not the same everywhere.

    Args:
        rows: The keys.
        refused: Whether the plugin refuses its settings as they are.
    """
    cells: list[Sequence[str]] = [("", "KEY", "STORAGE", "FILE", "DEFAULT", "EFFECTIVE", "")]
    for row in rows:
        default = "(required)" if row.required else _cut(row.default)
        note = "refused" if row.refused else "unknown" if row.kind == "unknown" else ""
        mark = "*" if row.differs else ""
        effective = _LAST_GOOD if refused and row.kind == "setting" else _cut(row.effective)
        cells.append((mark, row.key, _cut(row.storage), _cut(row.file), default, effective, note))
    return columns(cells)


def _cut(value: str | None) -> str:
    if value is None:
        return "-"
    shown = value if value.strip() else repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


# --- what the code declares -------------------------------------------------------------------------------------------


def asking(program: Sequence[str], *, run: bool) -> list[str] | None:
    """Return the command that prints what the plugin's code declares; None where its launch names no target.

    Args:
        program: The command by which the agent launches the plugin.
        run: Whether a program that may not be the framework's is run all the same, with `settings --json`.
    """
    given = list(program)
    for number, word in enumerate(given[1:], 1):
        ours = (word == _OURS and given[number - 1] == "-m") or Path(word).stem == _SCRIPT
        if ours and given[number + 1 : number + 2] == ["run"] and len(given) > number + 2:
            return [*given[: number + 1], "settings", "declared", given[number + 2], *_WORDS]
    if Path(given[0]).stem == _SCRIPT and given[1:2] == ["run"] and len(given) > 2:
        return [given[0], "settings", "declared", given[2], *_WORDS]
    return [given[0], "settings", *_WORDS] if run else None


def ask(command: Sequence[str], plugin: str, folder: Path, values: Mapping[str, str]) -> dict[str, Any]:
    """Run such a command in a folder, and return what the code declares, and says of values that the agent hands out.

    Raises:
        UsageError: It did not say, or is about another plugin.
    """
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, input=json.dumps(values).encode(), capture_output=True, timeout=WITHIN, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UsageError(f"{command[0]} did not say which settings {plugin} declares: {exc}") from exc
    try:
        found: dict[str, Any] = json.loads(done.stdout)
        known = (
            found["id"] == plugin
            and isinstance(found["refused"], str)
            and all(one["key"] for one in (*found["settings"], *found["knobs"]))
        )
    except (ValueError, TypeError, KeyError):
        known, found = False, {}
    if not known:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said something else"]
        raise UsageError(f"{command[0]} did not say which settings {plugin} declares: {said[-1]}")
    return found
