"""What the vendor's pages say: names, paths, words. Each item names its page; none of it can be replaced.

The pages are named as in `contract`. `devagent` may use the names of this file, and no others of the package.
"""

from typing import Final

SYSTEM_PLUGIN: Final = "KeeperPrivilegeManager"
"""Pseudo plugin whose settings are the agent's own, `broker.host` among them (HTTP Reference)."""

BROKER_HOST_KEY: Final = "broker.host"
BROKER_PORT_KEY: Final = "broker.port"
"""Where the broker is, both strings (HTTP Reference)."""

LOGGING_LEVEL_KEY: Final = "system.logging.level"
"""The least level of the agent's own log, one of `LOG_LEVELS` (Plugin & Task Settings)."""

DEFAULT_BROKER_HOST: Final = "127.0.0.1"
DEFAULT_BROKER_PORT: Final = 8675
"""The broker's address where the settings lack it (Overview)."""

DEFAULT_HTTPS_PORT: Final = 6889
DEFAULT_API_BASE: Final = f"https://127.0.0.1:{DEFAULT_HTTPS_PORT}"
"""The API's address (HTTP Reference)."""

API_BASE_TOKEN: Final = "{KeeperApiBaseUrl}"  # noqa: S105  a placeholder, no password
"""Substituted by the agent in a job task's arguments (HTTP Reference); for a plugin's it is not documented."""

SETTINGS_PATH: Final = "/api/PluginSettings"
HEALTH_PATH: Final = "/health"
REVERT: Final = "revert"
REVERT_ALL: Final = "revert-all"
STATUS: Final = "status"
"""Paths of the PluginSettings API and of the public health check (HTTP Reference)."""

APPSETTINGS_FILE: Final = "appsettings.json"
APPSETTINGS_SECTION: Final = "Settings"
APPSETTINGS_HTTPS_PORT: Final = "KestrelHttpsPort"
"""The agent's configuration file, next to its executable (Settings Keys)."""

PLUGINS_FOLDER: Final = "Plugins"
PLUGINS_BIN_FOLDER: Final = "Plugins/bin"
"""`Plugins/<PluginId>.json` and `Plugins/bin/<PluginId>/<PluginId>[.exe]` below the agent root (Plugin Guide)."""

PLATFORMS: Final = ("Windows", "Linux", "macOS")
PLUGIN_TYPE: Final = "Executable"
EXECUTION_CONTEXTS: Final = ("Service", "User", "Interactive")
MQTT_ROLE: Final = ("subscriber", "publisher")
"""Words of a plugin's JSON (Plugin Guide, Registration; `mqttRole` as in every example)."""

LOGGER_TOPIC: Final = "KeeperLogger"
"""Where log records are published (Overview)."""

COMMANDS_LEVEL: Final = "Commands"
RESPONSES_LEVEL: Final = "Responses"
STATUS_LEVEL: Final = "Status"
"""Levels below a plugin's id: `Commands/scan` is answered on `Responses/scan` (Plugin Cmd-Resp)."""

BUILT_IN_PLUGINS: Final = (
    "KeeperAPI",
    "KeeperPolicy",
    "KeeperLogger",
    "Logger",
    "KeeperUSession",
    "KeeperClient",
    "KeeperPrivilegeManager",
)
"""Ids that the agent uses itself (Plugins & Settings)."""

JOB_ID_VARIABLE: Final = "KEEPER_JOB_ID"
"""Set by the agent for job tasks, never for plugins (Overview)."""

LOG_LEVELS: Final = ("Trace", "Debug", "Information", "Warning", "Error", "Critical")
"""Levels of the agent's log files, least severe first (Reading Logs; `Trace` in Plugin & Task Settings)."""
