"""From declarations to a manifest."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from kepm_plugin.contract import MQTT_ROLE, PLATFORMS, PLUGIN_TYPE, PLUGINS_BIN_FOLDER
from kepm_plugin.errors import PluginDefinitionError, SettingsError, UsageError
from kepm_plugin.plugin import Declarations
from kepm_plugin.settings import leaves_of, manifest_defaults

from ._document import Manifest

WINDOWS = "Windows"


def manifest_of(
    declarations: Declarations,
    *,
    platforms: Sequence[str] | None = None,
    executable: str | None = None,
    arguments: str | None = None,
) -> Manifest:
    """Return the manifest of a plugin.

    The defaults of its settings stand at the root, sorted by key: of the two places that the vendor allows, only the
    root keeps a key's name as it is. Secrets, and settings without a default, are never in it.

    Args:
        declarations: The plugin's declarations, checked.
        platforms: Where it is to run, of `Plugin.platforms`; the current platform where none is given.
        executable: The program, relative to the agent root or absolute; `Plugins/bin/<Id>/<Id>[.exe]` unless given.
        arguments: Its command line; the manifest has none unless given.

    Raises:
        UsageError: A platform that the plugin does not support, or several with Windows and no `executable`.
        PluginDefinitionError: The defaults together break a rule of the settings.
    """
    plugin = declarations.plugin
    _check_defaults(declarations)
    chosen = supported(plugin.id, plugin.platforms, platforms)
    content: dict[str, Any] = {
        "id": plugin.id,
        "name": plugin.name or plugin.id,
        "description": plugin.description(),
        "version": plugin.version,
        "pluginType": PLUGIN_TYPE,
        "executablePath": executable or default_executable(plugin.id, chosen),
        "arguments": arguments,
        "supportedPlatforms": list(chosen),
        "Subscription": {"Topic": plugin.id, "Qos": plugin.qos, "CleanSession": plugin.clean_session},
        "metadata": {
            "mqttRole": list(MQTT_ROLE),
            "mqttTopics": {"publish": list(declarations.publish), "subscribe": list(declarations.subscribe)},
        },
        "startupPriority": plugin.startup_priority,
        "autoStart": plugin.auto_start,
        "executionContext": plugin.execution_context,
        "requiresMonitoring": plugin.requires_monitoring,
        "autoRestart": plugin.auto_restart,
    }
    for name in ("description", "arguments"):
        if not content[name]:
            del content[name]
    return Manifest(content | dict(sorted(manifest_defaults(declarations.settings_type).items())))


def _check_defaults(declarations: Declarations) -> None:
    """Refuse a file with which the plugin would not start, whatever machine it is on."""
    settings = declarations.settings_type
    if any(leaf.required for leaf in leaves_of(settings)):
        return  # Then an operator has to set something, and may as well set more.
    try:
        settings()
    except SettingsError as error:
        raise PluginDefinitionError(
            f"{declarations.plugin.__qualname__}.settings: the defaults break a rule ({error}); correct them, or leave "
            "out the default of what must be set at the agent"
        ) from None


def current_platform(system: str = sys.platform) -> str:
    """Return the vendor's name of an operating system, by its name in `sys.platform`."""
    return {"win32": WINDOWS, "cygwin": WINDOWS, "darwin": "macOS"}.get(system, "Linux")


def supported(plugin_id: str, declared: Iterable[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the platforms of a manifest in the vendor's spelling and order; the current one where none is wanted.

    Raises:
        UsageError: One of them is not among `Plugin.platforms`.
    """
    ours = set(declared)
    known = {one.casefold(): one for one in PLATFORMS}
    listed = ", ".join(one for one in PLATFORMS if one in ours)
    if not wanted and current_platform() not in ours:
        raise UsageError(
            f"{plugin_id} is not for {current_platform()}, where this runs; name one of its platforms, {listed}, with "
            "--platform, or add this one to Plugin.platforms"
        )
    chosen: set[str] = set()
    for one in wanted or [current_platform()]:
        if known.get(one.casefold()) not in ours:
            raise UsageError(
                f"{plugin_id} is not for platform {one!r}; choose of {listed}, or add it to Plugin.platforms"
            )
        chosen.add(known[one.casefold()])
    return tuple(one for one in PLATFORMS if one in chosen)


def default_executable(plugin_id: str, platforms: Sequence[str]) -> str:
    """Return where a plugin's program lies below the agent root (Plugin Guide).

    Raises:
        UsageError: Windows is one of several platforms, so that no single name is right.
    """
    if WINDOWS in platforms and len(platforms) > 1:
        raise UsageError(
            f"{plugin_id}: one file for {', '.join(platforms)} cannot name the program of all of them, as it ends with "
            "'.exe' on Windows only; write one manifest for each platform, or give --executable"
        )
    suffix = ".exe" if WINDOWS in platforms else ""
    return f"{PLUGINS_BIN_FOLDER}/{plugin_id}/{plugin_id}{suffix}"
