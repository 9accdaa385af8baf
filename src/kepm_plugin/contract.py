"""Everything that the agent expects or offers on the wire: names, paths, forms.

Each item says *documented* with the vendor's page, or *assumed*. Assumed items are fields of `Contract`, so that one
object replaces them all; documented ones are constants. Nothing here was checked against a real agent.

The vendor's pages, as named below: Overview, HTTP Reference, Plugin Guide, Plugin Min (Windows, Linux, macOS),
Plugin Cmd-Resp, Plugin Manual, Registration, MQTT Permissions, Plugin & Task Settings, Settings Keys, Cert Support.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

# --- documented -----------------------------------------------------------------------------------------------------

SYSTEM_PLUGIN: Final = "KeeperPrivilegeManager"
"""Pseudo plugin whose settings are the agent's own, `broker.host` among them (HTTP Reference)."""

BROKER_HOST_KEY: Final = "broker.host"
BROKER_PORT_KEY: Final = "broker.port"
"""Where the broker is, both strings (HTTP Reference)."""

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

# --- ours: the framework's own topics and names -----------------------------------------------------------------------

LINK_LEVEL: Final = "Link"
"""`<Id>/Link` carries the echo that proves the link; ours, declared in the manifest like any other topic."""

SETTINGS_LEVEL: Final = "settings"
"""`<Id>/Status/settings` carries the settings in force; ours, declared in the manifest like any other topic."""

RESERVED_SETTING_PREFIX: Final = "kepm."
"""Settings that begin so are the framework's own knobs."""

State = Literal["starting", "standby", "running", "degraded", "disconnected", "stopping", "stopped"]
"""States of a plugin as published on `<Id>/Status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the vendor's pages leave open, as the framework assumes it. Every field can be replaced."""

    client_id: str = "{PluginId}"
    """*Assumed.* Template of the MQTT client id; MQTT Permissions says only that the plugin is recognised by it."""

    put_value_field: str = "value"
    """*Assumed.* Name of the property of `PluginSettingValue`, the body of a PUT (HTTP Reference names its type)."""

    value_fields: tuple[str, ...] = ("value", "settingValue")
    """*Assumed.* Where a single setting's answer is an object, the properties that may hold the value, any casing."""

    status_hash_fields: tuple[str, ...] = ("settingsHash", "effectiveHash", "configurationHash", "hash")
    """*Assumed.* Fields of a plugin's settings status (HTTP Reference: "hash status") of which one stands for all its
    effective settings, in any casing, also one level down."""

    log_timestamp_field: str = "timestamp"
    log_level_field: str = "level"
    log_message_field: str = "message"
    log_source_field: str = "source"
    """*Assumed.* Keys of a KeeperLogger record; the pages say "structured JSON" only (Overview)."""

    correlation_field: str = "correlationId"
    """*Assumed.* Key of a command's and its response's identity; no payload is documented (Plugin Cmd-Resp)."""

    def client_id_for(self, plugin_id: str) -> str:
        """Return the MQTT client id of a plugin."""
        return self.client_id.replace("{PluginId}", plugin_id)

    def put_body(self, value: str | float | bool) -> dict[str, object]:
        """Return the body of a settings PUT: string, number or boolean as the setting needs."""
        return {self.put_value_field: value}

    def single_value(self, answer: object) -> object:
        """Return the value in the answer to a GET of one setting: bare, or in an object of any casing.

        Raises:
            LookupError: The answer is an object without any of `value_fields`.
        """
        if not isinstance(answer, Mapping):
            return answer
        fields = {str(key).lower(): value for key, value in cast("Mapping[object, object]", answer).items()}
        for name in self.value_fields:
            if name.lower() in fields:
                return fields[name.lower()]
        raise LookupError(", ".join(fields))

    def status_hash(self, status: Mapping[str, object]) -> str | None:
        """Return what the agent's status says to stand for all effective settings; None where nothing is known to."""
        below = [cast("Mapping[str, object]", value) for value in status.values() if isinstance(value, Mapping)]
        for fields in ({str(key).casefold(): value for key, value in one.items()} for one in (status, *below)):
            for name in self.status_hash_fields:
                found = fields.get(name.casefold())
                if isinstance(found, str) and found:
                    return found
        return None

    def log_record(
        self, *, timestamp: str, level: str, source: str, message: str, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return one KeeperLogger record: the four named keys first, then the event's own fields."""
        own = {
            self.log_timestamp_field: timestamp,
            self.log_level_field: level,
            self.log_source_field: source,
            self.log_message_field: message,
        }
        return own | {key: value for key, value in fields.items() if key not in own}

    def status(
        self, *, state: State, reason: str, version: str, process: int, time: float, details: Mapping[str, object]
    ) -> dict[str, object]:
        """Return a report for `<Id>/Status`. *Assumed*: only the topic is documented (Plugin Cmd-Resp).

        `time` is in seconds since the epoch; `details` are counters and the like.
        """
        return {"state": state, "reason": reason, "version": version, "processId": process, "time": time, **details}

    def settings_report(
        self,
        *,
        settings: Mapping[str, Mapping[str, object]],
        unknown: Sequence[str],
        refused: Mapping[str, object] | None,
        transaction: Mapping[str, object] | None,
        time: float,
    ) -> dict[str, object]:
        """Return a report for `<Id>/Status/settings`. *Assumed*: the topic is ours, below a documented one.

        `settings` has value and default of each key, secrets masked; `time` is in seconds since the epoch.
        """
        return {
            "settings": settings,
            "unknown": list(unknown),
            "refused": refused,
            "transaction": transaction,
            "time": time,
        }

    def answer_ok(self, correlation_id: object, result: object) -> dict[str, object]:
        """Return a command's answer yes."""
        return {self.correlation_field: correlation_id, "ok": True, "result": result}

    def answer_progress(self, correlation_id: object, progress: object) -> dict[str, object]:
        """Return an interim report on a command; its answer is still to come."""
        return {self.correlation_field: correlation_id, "progress": progress}

    def answer_error(self, correlation_id: object, error: str) -> dict[str, object]:
        """Return a command's answer no."""
        return {self.correlation_field: correlation_id, "ok": False, "error": error}


ASSUMED: Final = Contract()
"""The assumptions in force where nothing replaces them."""


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
