"""The topics of a plugin, and the names that are the framework's own."""

from typing import Final

from ._documented import COMMANDS_LEVEL, RESPONSES_LEVEL, STATUS_LEVEL

LINK_LEVEL: Final = "Link"
"""`<Id>/Link` carries the echo that proves the link; ours, declared in the manifest like any other topic."""

SETTINGS_LEVEL: Final = "settings"
"""`<Id>/Status/settings` carries the settings in force; ours, declared in the manifest like any other topic."""

RESERVED_SETTING_PREFIX: Final = "kepm."
"""Settings that begin so are the framework's own knobs."""


def command_topic(plugin_id: str, command: str) -> str:
    """Return the topic of a command, as in `MyWorker/Commands/scan` (Plugin Cmd-Resp)."""
    return f"{plugin_id}/{COMMANDS_LEVEL}/{command}"


def response_topic(plugin_id: str, command: str) -> str:
    """Return the topic of a command's response, as in `MyWorker/Responses/scan` (Plugin Cmd-Resp)."""
    return f"{plugin_id}/{RESPONSES_LEVEL}/{command}"


def status_topic(plugin_id: str) -> str:
    """Return the topic of a plugin's health signal, as in `MyWorker/Status` (Plugin Cmd-Resp)."""
    return f"{plugin_id}/{STATUS_LEVEL}"


def settings_topic(plugin_id: str) -> str:
    """Return the topic of the settings that are in force."""
    return f"{status_topic(plugin_id)}/{SETTINGS_LEVEL}"


def link_topic(plugin_id: str) -> str:
    """Return the topic of the echo."""
    return f"{plugin_id}/{LINK_LEVEL}"
