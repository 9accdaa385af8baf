"""`settings`: those of a plugin under a local agent, and those that a plugin's code declares."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from kepm_plugin.contract import LOGGING_LEVEL_KEY, RESERVED_SETTING_PREFIX, SYSTEM_PLUGIN
from kepm_plugin.errors import UnknownPlugin, UsageError
from kepm_plugin.plugin import Plugin
from kepm_plugin.spelling import nearest

from . import _letter_text as text
from ._dev import client_of, print_json

ASK: Final = "Run the plugin's program with `settings --json` for its defaults, where its manifest names no target."


def get_settings(plugin: str, key: str | None, root: Path | None) -> None:
    """Print the merged settings of a plugin, or one value.

    Raises:
        UnknownPlugin: No such plugin or setting.
        AgentError: No local agent runs.
    """
    values = client_of(root, plugin).get_settings(plugin)
    if key is None:
        print_json(values)
    elif key in values:
        print(values[key])
    else:
        raise UnknownPlugin(f"{plugin} has no setting {key!r}; it has {', '.join(sorted(values)) or 'none'}")


def set_setting(plugin: str, key: str, value: str, root: Path | None) -> None:
    """Store a setting over the file's value, as the text that it is: the agent hands out text only.

    A note says where the file has no such setting: it may be misspelt, or be a required one, which no file has.

    Raises:
        AgentError: No local agent runs, or it knows no such plugin.
    """
    client = client_of(root, plugin)
    in_file = client.set_setting(plugin, key, value)
    if key.casefold().startswith(RESERVED_SETTING_PREFIX):
        _note_on_knob(key, value)
        return
    if in_file:
        return
    others = list(client.settings_layers(plugin)["file"])  # what is stored may be misspelt, too
    near = next((one for one in others if one.endswith(f".{key}")), "") or nearest(key, others)
    meant = f"; {near} is meant?" if near else ""
    print(
        f"kepm-plugin: stored; {key} is not among the settings in {plugin}'s file, which holds all but required and "
        f"secret ones{meant}",
        file=sys.stderr,
    )


def revert_settings(plugin: str | None, root: Path | None) -> None:
    """Go back to the file's values, of one plugin or of all.

    Raises:
        AgentError: No local agent runs, or it knows no such plugin.
    """
    client_of(root, plugin).revert_settings(plugin)


def settings_status(plugin: str, root: Path | None) -> None:
    """Print which settings differ from the file.

    Raises:
        AgentError: No local agent runs, or it knows no such plugin.
    """
    print_json(client_of(root, plugin).settings_status(plugin))


def diff(plugin: str, root: Path | None, *, as_json: bool, run: bool) -> None:
    """Print each key with what is stored, what the file holds, the code's default, and what is in force.

    Where the code's defaults cannot be found out, a line on standard error says why, and the others are printed.

    Raises:
        AgentError: No local agent runs, or it knows no such plugin.
    """
    from . import _diff

    client = client_of(root, plugin)
    layers = client.settings_layers(plugin)
    command = _diff.asking(layers["program"], run=run) if layers["program"] else None
    declared, why = None, "its manifest names no target; --ask runs its program with `settings --json`"
    if command is not None:
        try:
            declared = _diff.ask(command, plugin, client.root, client.get_settings(plugin))
        except UsageError as exc:
            why = str(exc)
    knobs: list[dict[str, Any]] = []
    if plugin == SYSTEM_PLUGIN:
        why = "it is the agent itself"
    else:
        level = client.get_settings(SYSTEM_PLUGIN).get(LOGGING_LEVEL_KEY, "")
        knobs = _diff.knobs_of(declared, level)
    rows = _diff.rows_of(layers, declared, knobs)
    refused = "" if declared is None else declared["refused"]
    if as_json:
        print_json(
            {
                "pluginName": plugin,
                "defaultsKnown": declared is not None,
                "fileChanged": layers["fileChanged"],
                "refused": refused,
                "settings": [asdict(row) for row in rows],
            }
        )
    else:
        for line in _diff.table(rows, refused=bool(refused)):
            text.say(line)
    if refused:
        print(
            f"kepm-plugin: {plugin} refuses these settings: {text.visible(refused)}; what was in force before stays, "
            "or it does not start",
            file=sys.stderr,
        )
    if declared is None:
        print(
            f"kepm-plugin: the defaults of {plugin}'s code are not known, nor which settings are secret: {why}; what "
            "the file does not hold is masked",
            file=sys.stderr,
        )
    if layers["fileChanged"]:
        print(
            f"kepm-plugin: {plugin}'s file has changed since the agent read it; `settings revert` reads it",
            file=sys.stderr,
        )


def _note_on_knob(key: str, value: str) -> None:
    """Say what a plugin will say of one of the framework's own settings."""
    from kepm_plugin.knobs import Knobs, read

    reading = read({key: value}, Plugin, Knobs())
    for near in reading.unknown.values():
        meant = f"; {near} is meant?" if near else ""
        print(f"kepm-plugin: stored; the framework has no setting {key}{meant}", file=sys.stderr)
    for reason in reading.refused.values():
        print(f"kepm-plugin: stored; the plugin will refuse it: {reason}", file=sys.stderr)
