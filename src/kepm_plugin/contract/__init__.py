"""Everything that the agent expects or offers on the wire: names, paths, forms.

Each item is *documented*, with the vendor's page, or *assumed*. Assumed items are fields of `Contract`, so that one
object replaces them all; documented ones are constants. Nothing here was checked against a real agent.

The vendor's pages, as named here: Overview, HTTP Reference, Plugin Guide, Plugin Min (Windows, Linux, macOS),
Plugin Cmd-Resp, Plugin Manual, Registration, MQTT Permissions, Plugin & Task Settings, Settings Keys, Cert Support.
"""

from typing import Final

from . import _documented
from ._assumed import ASSUMED, ITEMS, STATES, Contract, State
from ._documented import (
    API_BASE_TOKEN,
    APPSETTINGS_FILE,
    APPSETTINGS_HTTPS_PORT,
    APPSETTINGS_SECTION,
    BROKER_HOST_KEY,
    BROKER_PORT_KEY,
    BUILT_IN_PLUGINS,
    COMMANDS_LEVEL,
    DEFAULT_API_BASE,
    DEFAULT_BROKER_HOST,
    DEFAULT_BROKER_PORT,
    DEFAULT_HTTPS_PORT,
    EXECUTION_CONTEXTS,
    HEALTH_PATH,
    JOB_ID_VARIABLE,
    LOG_LEVELS,
    LOGGER_TOPIC,
    LOGGING_LEVEL_KEY,
    MQTT_ROLE,
    PLATFORMS,
    PLUGIN_TYPE,
    PLUGINS_BIN_FOLDER,
    PLUGINS_FOLDER,
    RESPONSES_LEVEL,
    REVERT,
    REVERT_ALL,
    SETTINGS_PATH,
    STATUS,
    STATUS_LEVEL,
    SYSTEM_PLUGIN,
)
from ._rules import Rule
from ._topics import (
    LINK_LEVEL,
    RESERVED_SETTING_PREFIX,
    SETTINGS_LEVEL,
    command_topic,
    link_topic,
    response_topic,
    settings_topic,
    status_topic,
)

DOCUMENTED: Final = frozenset(name for name in vars(_documented) if name.isupper())
"""Names of the documented items, which nothing replaces."""

__all__ = [
    "API_BASE_TOKEN",
    "APPSETTINGS_FILE",
    "APPSETTINGS_HTTPS_PORT",
    "APPSETTINGS_SECTION",
    "ASSUMED",
    "BROKER_HOST_KEY",
    "BROKER_PORT_KEY",
    "BUILT_IN_PLUGINS",
    "COMMANDS_LEVEL",
    "DEFAULT_API_BASE",
    "DEFAULT_BROKER_HOST",
    "DEFAULT_BROKER_PORT",
    "DEFAULT_HTTPS_PORT",
    "DOCUMENTED",
    "EXECUTION_CONTEXTS",
    "HEALTH_PATH",
    "ITEMS",
    "JOB_ID_VARIABLE",
    "LINK_LEVEL",
    "LOGGER_TOPIC",
    "LOGGING_LEVEL_KEY",
    "LOG_LEVELS",
    "MQTT_ROLE",
    "PLATFORMS",
    "PLUGINS_BIN_FOLDER",
    "PLUGINS_FOLDER",
    "PLUGIN_TYPE",
    "RESERVED_SETTING_PREFIX",
    "RESPONSES_LEVEL",
    "REVERT",
    "REVERT_ALL",
    "SETTINGS_LEVEL",
    "SETTINGS_PATH",
    "STATES",
    "STATUS",
    "STATUS_LEVEL",
    "SYSTEM_PLUGIN",
    "Contract",
    "Rule",
    "State",
    "command_topic",
    "link_topic",
    "response_topic",
    "settings_topic",
    "status_topic",
]
