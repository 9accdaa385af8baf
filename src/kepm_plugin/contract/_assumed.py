"""What the vendor's pages leave open, as the framework assumes it: one object, every field of which a file may replace.

`contractfile` reads that file; an item's docstring is its description in the file's schema.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast, get_args

from msgspec import Struct

from ..errors import UsageError
from ._documented import LOG_LEVELS
from ._rules import CLIENT_ID, PROPERTIES, PROPERTY, SWITCH, Rule, one_of, words

State = Literal["starting", "standby", "running", "degraded", "disconnected", "stopping", "stopped"]
"""States of a plugin as published on `<Id>/Status`."""

STATES: Final[tuple[State, ...]] = get_args(State)


class Contract(Struct, frozen=True, kw_only=True):
    """What the vendor's pages leave open, as the framework assumes it. Every field can be replaced.

    Raises:
        UsageError: A value breaks its item's rule, or two properties of one JSON object would have one name.
    """

    client_id: Annotated[str, CLIENT_ID] = "{PluginId}"
    """*Assumed.* The MQTT client id; MQTT Permissions says only that a plugin is recognised by its form.
    `{ProcessId}` and `{Random}` (eight hexadecimal digits) are those of one run of the plugin."""

    subscribe_primary_topic: Annotated[bool, SWITCH] = False
    """*Assumed.* Whether a plugin subscribes to its primary topic `<Id>`, even where no handler takes it."""

    put_value_field: Annotated[str, PROPERTY] = "value"
    """*Assumed.* Property of `PluginSettingValue`, the body of a PUT, that has the value (HTTP Reference)."""

    put_value_form: Annotated[Literal["native", "string"], one_of("native", "string")] = "native"
    """*Assumed.* Whether a number or a boolean is written as itself or as text; the pages have it "as the setting
    needs" (HTTP Reference)."""

    put_tier: Annotated[Literal["plugin", "admin"], one_of("plugin", "admin")] = "plugin"
    """*Assumed.* Who may write settings: the pages contradict each other (HTTP Reference: plugins; an older Plugin &
    Task Settings: administrators). With `admin` no plugin tries."""

    value_fields: Annotated[tuple[str, ...], PROPERTIES] = ("value", "settingValue")
    """*Assumed.* Where a single setting is answered as an object, the properties that may have the value, in any
    casing (HTTP Reference)."""

    status_hash_fields: Annotated[tuple[str, ...], PROPERTIES] = (
        "settingsHash",
        "effectiveHash",
        "configurationHash",
        "hash",
    )
    """*Assumed.* Fields of a plugin's settings status (HTTP Reference: "hash status") of which one stands for all its
    effective settings, in any casing, also one level down."""

    log_timestamp_field: Annotated[str, PROPERTY] = "timestamp"
    log_level_field: Annotated[str, PROPERTY] = "level"
    log_message_field: Annotated[str, PROPERTY] = "message"
    log_source_field: Annotated[str, PROPERTY] = "source"
    """*Assumed.* A property of a KeeperLogger record, which is "structured JSON" (Overview)."""

    log_timestamp_form: Annotated[
        Literal["iso", "seconds", "milliseconds"], one_of("iso", "seconds", "milliseconds")
    ] = "iso"
    """*Assumed.* A record's time: `2026-06-30T10:30:00.000Z`, or a number since 1970."""

    log_levels: Annotated[tuple[str | int, ...], words(len(LOG_LEVELS), "least severe first", numbers=True)] = (
        LOG_LEVELS
    )
    """*Assumed.* A record's levels; the words are those of the agent's log files (Reading Logs)."""

    log_extra: Annotated[Literal["properties", "message"], one_of("properties", "message")] = "properties"
    """*Assumed.* Where an event's own fields go: into further properties of the record, or into its message."""

    correlation_field: Annotated[str, PROPERTY] = "correlationId"
    """*Assumed.* The identity of a command and its answer; no payload is documented (Plugin Cmd-Resp)."""

    answer_ok_field: Annotated[str, PROPERTY] = "ok"
    answer_result_field: Annotated[str, PROPERTY] = "result"
    answer_error_field: Annotated[str, PROPERTY] = "error"
    answer_progress_field: Annotated[str, PROPERTY] = "progress"
    """*Assumed.* A property of an answer to a command (Plugin Cmd-Resp)."""

    status_state_field: Annotated[str, PROPERTY] = "state"
    status_reason_field: Annotated[str, PROPERTY] = "reason"
    status_version_field: Annotated[str, PROPERTY] = "version"
    status_process_field: Annotated[str, PROPERTY] = "processId"
    status_time_field: Annotated[str, PROPERTY] = "time"
    """*Assumed.* A property of a report on `<Id>/Status`; only the topic is documented (Plugin Cmd-Resp)."""

    status_words: Annotated[tuple[str, ...], words(len(STATES), f"in place of {', '.join(STATES)}")] = STATES
    """*Assumed.* What a plugin's states are called on `<Id>/Status`."""

    def __post_init__(self) -> None:
        for name, rule in ITEMS.items():
            # The defaults do, which a test looks at: hardly a process has others.
            if (value := getattr(self, name)) is not _DEFAULTS[name] and not rule.holds(value):
                raise UsageError(f"{name} must be {rule.said}, not {value!r}")
        for names in _OBJECTS:
            seen: dict[str, str] = {}
            for name in names:
                # Readers in .NET often ignore the casing.
                other = seen.setdefault(getattr(self, name).casefold(), name)
                if other != name:
                    raise UsageError(f"{name} and {other} are both {getattr(self, name)!r}; give them different names")

    def changes(self) -> dict[str, Any]:
        """Return the items that differ from what is assumed, with their values."""
        return {name: value for name in ITEMS if (value := getattr(self, name)) != getattr(ASSUMED, name)}

    def client_id_for(self, plugin_id: str, *, process: int, random: str) -> str:
        """Return the MQTT client id of a plugin, in a run that has this process and drew this text."""
        filled = self.client_id.replace("{ProcessId}", str(process)).replace("{Random}", random)
        return filled.replace("{PluginId}", plugin_id)

    def put_body(self, value: str | float | bool) -> dict[str, object]:
        """Return the body of a settings PUT."""
        as_it_is = self.put_value_form == "native" or isinstance(value, str)
        return {self.put_value_field: value if as_it_is else json.dumps(value)}

    def single_value(self, answer: object) -> object:
        """Return the value in the answer to a GET of one setting: bare, or in an object of any casing.

        Raises:
            LookupError: The answer is an object without any of `value_fields`.
        """
        if not isinstance(answer, Mapping):
            return answer
        found = {str(key).lower(): value for key, value in cast("Mapping[object, object]", answer).items()}
        for name in self.value_fields:
            if name.lower() in found:
                return found[name.lower()]
        raise LookupError(", ".join(found) or "none")

    def status_hash(self, status: Mapping[str, object]) -> str | None:
        """Return what the agent's status says to stand for all effective settings; None where nothing is known to."""
        below = [cast("Mapping[str, object]", value) for value in status.values() if isinstance(value, Mapping)]
        for found in ({str(key).casefold(): value for key, value in one.items()} for one in (status, *below)):
            for name in self.status_hash_fields:
                value = found.get(name.casefold())
                if isinstance(value, str) and value:
                    return value
        return None

    def log_record(
        self, *, timestamp: str, level: str, source: str, message: str, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return one KeeperLogger record: the four named keys first, then the event's own fields.

        `timestamp` is ISO 8601 in UTC, `level` one of `LOG_LEVELS`.
        """
        if self.log_extra == "message":
            message, fields = " ".join([message, *_told(fields)]), {}
        own = {
            self.log_timestamp_field: self._timestamp(timestamp),
            self.log_level_field: self.log_levels[LOG_LEVELS.index(level)],
            self.log_source_field: source,
            self.log_message_field: message,
        }
        if own.keys().isdisjoint(fields):
            return {**own, **fields}
        return own | {key: value for key, value in fields.items() if key not in own}

    def _timestamp(self, text: str) -> str | float:
        if self.log_timestamp_form == "iso":
            return text
        seconds = datetime.fromisoformat(text).timestamp()
        return round(seconds, 3) if self.log_timestamp_form == "seconds" else round(seconds * 1000)

    def status(
        self, *, state: State, reason: str, version: str, process: int, time: float, details: Mapping[str, object]
    ) -> dict[str, object]:
        """Return a report for `<Id>/Status`; `time` is in seconds since the epoch, `details` are counters and such."""
        own = {
            self.status_state_field: self.status_words[STATES.index(state)],
            self.status_reason_field: reason,
            self.status_version_field: version,
            self.status_process_field: process,
            self.status_time_field: time,
        }
        return own | {f"{key}_" if key in own else key: value for key, value in details.items()}

    def settings_report(
        self,
        *,
        settings: Mapping[str, Mapping[str, object]],
        unknown: Sequence[str],
        renamed: Mapping[str, str],
        refused: Mapping[str, object] | None,
        transaction: Mapping[str, object] | None,
        time: float,
    ) -> dict[str, object]:
        """Return a report for `<Id>/Status/settings`. *Assumed*: the topic is ours, below a documented one.

        `settings` has value and default of each key, secrets masked; `renamed` has the old keys that a value was taken
        from, with the new ones; `time` is in seconds since the epoch.
        """
        return {
            "settings": settings,
            "unknown": list(unknown),
            "renamed": renamed,
            "refused": refused,
            "transaction": transaction,
            "time": time,
        }

    def answer_ok(self, correlation_id: object, result: object) -> dict[str, object]:
        """Return a command's answer yes."""
        return {self.correlation_field: correlation_id, self.answer_ok_field: True, self.answer_result_field: result}

    def answer_progress(self, correlation_id: object, progress: object) -> dict[str, object]:
        """Return an interim report on a command; its answer is still to come."""
        return {self.correlation_field: correlation_id, self.answer_progress_field: progress}

    def answer_error(self, correlation_id: object, error: str) -> dict[str, object]:
        """Return a command's answer no."""
        return {self.correlation_field: correlation_id, self.answer_ok_field: False, self.answer_error_field: error}

    def is_interim(self, answer: Mapping[str, Any]) -> bool:
        """Tell whether an answer is a report on the way."""
        return self.answer_progress_field in answer and self.answer_ok_field not in answer

    def refusal(self, answer: Mapping[str, Any]) -> str | None:
        """Return why an answer says no; None where it does not."""
        if answer.get(self.answer_ok_field) is not False:
            return None
        return str(answer.get(self.answer_error_field, "no reason given"))

    def result(self, answer: Mapping[str, Any]) -> object:
        """Return the result in an answer; another plugin may answer without an envelope: then the object itself."""
        if self.answer_ok_field in answer and self.answer_result_field in answer:
            return answer[self.answer_result_field]
        return {name: value for name, value in answer.items() if name != self.correlation_field}


def _told(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


ITEMS: Final[Mapping[str, Rule]] = {name: one.__metadata__[0] for name, one in Contract.__annotations__.items()}
"""The rule of each item, in the order of the class."""

_DEFAULTS: Final[Mapping[str, Any]] = dict(zip(Contract.__struct_fields__, Contract.__struct_defaults__, strict=True))

_OBJECTS: Final = (
    tuple(name for name in ITEMS if name.startswith("log_") and name.endswith("_field")),
    tuple(name for name in ITEMS if name == "correlation_field" or name.startswith("answer_")),
    tuple(name for name in ITEMS if name.startswith("status_") and name.endswith("_field")),
)
"""Items that name properties of one JSON object."""

ASSUMED: Final = Contract()
"""The assumptions in force where nothing replaces them."""
