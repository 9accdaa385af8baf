"""The documented fields of a plugin's JSON: one table that gives casing, order, types and the JSON Schema."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from msgspec import Struct, field

from kepm_plugin.contract import EXECUTION_CONTEXTS, PLATFORMS, PLUGIN_TYPE

Kind = Literal["string", "integer", "boolean", "strings", "object"]

KINDS: Final[Mapping[Kind, str]] = {
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
    "strings": "a list of strings",
    "object": "an object",
}
"""What a field's value must be, in words."""

_FORBIDDEN_IN_ID: Final = r"^[^_/+#\s\\]+$"


class Field(Struct, frozen=True):
    """One documented field."""

    path: str
    """Way to the field from the root, with dots."""
    kind: Kind
    required: bool
    """Whether the vendor requires it (Plugin Guide)."""
    text: str
    rules: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Further keywords of JSON Schema; for a list of strings they hold for its members."""

    @property
    def parent(self) -> str:
        """Path of the object that holds the field, `""` for the root."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The field's name in its object."""
        return self.path.rpartition(".")[2]

    def fits(self, value: object) -> bool:
        """Tell whether a value is of the field's kind."""
        match self.kind:
            case "string":
                return isinstance(value, str)
            case "integer":
                return isinstance(value, int) and not isinstance(value, bool)
            case "boolean":
                return isinstance(value, bool)
            case "strings":
                return isinstance(value, list) and all(isinstance(one, str) for one in value)  # pyright: ignore[reportUnknownVariableType]
            case "object":
                return isinstance(value, dict)


_TEXT: Final = {"minLength": 1}

FIELDS: Final = (
    Field(
        "id",
        "string",
        True,
        "Stable identity: the file's name, the key of the settings, the first level of the topics.",
        {"pattern": _FORBIDDEN_IN_ID},
    ),
    Field("name", "string", False, "Display name in logs and admin views."),
    Field("description", "string", False, "Free text."),
    Field("version", "string", False, "Semantic version, for diagnostics only."),
    Field(
        "pluginType",
        "string",
        True,
        "'Executable' is a process of its own, 'Service' a component inside the agent; others depend on its version.",
        _TEXT,
    ),
    Field("executablePath", "string", False, "Relative to the agent root, or absolute.", _TEXT),
    Field(
        "arguments", "string", False, "Command line arguments; which variables the agent fills in is not documented."
    ),
    Field(
        "supportedPlatforms",
        "strings",
        True,
        "Elsewhere the agent skips the plugin.",
        {"enum": list(PLATFORMS)},
    ),
    Field("Subscription", "object", True, "The primary MQTT subscription."),
    Field("Subscription.Topic", "string", True, "By convention the id; unique among all plugins.", _TEXT),
    Field("Subscription.Qos", "integer", False, "2 in every example.", {"minimum": 0, "maximum": 2}),
    Field("Subscription.CleanSession", "boolean", False, "true in every example."),
    Field("metadata", "object", True, "Topics, and whatever else belongs to the plugin."),
    Field("metadata.mqttRole", "strings", False, "'subscriber' and 'publisher' in every example."),
    Field("metadata.mqttTopics", "object", True, "What the broker lets the plugin use."),
    Field(
        "metadata.mqttTopics.publish",
        "strings",
        True,
        "All topics that the plugin publishes to; '+' stands for one level.",
        _TEXT,
    ),
    Field(
        "metadata.mqttTopics.subscribe",
        "strings",
        True,
        "Topics that the plugin subscribes to, besides the primary one.",
        _TEXT,
    ),
    Field("startupPriority", "integer", False, "Lower starts first; 60 suits a plugin that nobody depends on."),
    Field("autoStart", "boolean", False, "Start with the agent; false: registered, not launched."),
    Field("executionContext", "string", False, "For whom the process runs.", {"enum": list(EXECUTION_CONTEXTS)}),
    Field("requiresMonitoring", "boolean", False, "Watch the process and notice an unexpected exit."),
    Field("autoRestart", "boolean", False, "Start it again when monitoring finds it stopped."),
)
"""Every field that the vendor's pages show, in their order, spelt as they spell it (Plugin Guide, Registration)."""

BY_PATH: Final = {one.path: one for one in FIELDS}


def children(parent: str) -> dict[str, Field]:
    """Return the fields of one object by name, in order; `""` is the root."""
    return {one.name: one for one in FIELDS if one.parent == parent}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a plugin's JSON, with the documented casing.

    Unknown properties are allowed everywhere: the plugin's settings stand beside the documented fields.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Plugin of Keeper Endpoint Privilege Manager",
        "description": "Plugins/<id>.json. Properties that are not listed are settings of the plugin.",
        **_object(""),
        "if": {"properties": {"pluginType": {"const": PLUGIN_TYPE}}},
        "then": {"required": ["executablePath"]},
    }


def _object(path: str) -> dict[str, Any]:
    own = children(path)
    return {
        "type": "object",
        "properties": {name: _property(one) for name, one in own.items()},
        "required": [name for name, one in own.items() if one.required],
    }


def _property(one: Field) -> dict[str, Any]:
    if one.kind == "object":
        return {"description": one.text, **_object(one.path)}
    if one.kind == "strings":
        least = {"minItems": 1} if one.required and one.name != "subscribe" else {}
        return {
            "description": one.text,
            "type": "array",
            "items": {"type": "string", **one.rules},
            "uniqueItems": True,
            **least,
        }
    return {"description": one.text, "type": one.kind, **one.rules}
