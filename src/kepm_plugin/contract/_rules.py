"""What an item of the contract may be. A rule is a JSON Schema and the same in words, so that neither can drift."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from msgspec import Struct


class Rule(Struct, frozen=True):
    """What one item's value must be: `said` ends the sentence "it must be …"."""

    said: str
    schema: Mapping[str, Any]

    def holds(self, value: object) -> bool:
        """Tell whether a value obeys; a tuple counts as an array."""
        return _obeys(value, self.schema)


_TYPES: Final[Mapping[str, type]] = {"string": str, "integer": int, "boolean": bool, "array": tuple}


def _obeys(value: object, schema: Mapping[str, Any]) -> bool:
    """Check the keywords that the rules of this file use."""
    types: str | Sequence[str] = schema["type"]
    if not any(_is(value, one) for one in ((types,) if isinstance(types, str) else types)):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, str):
        return "pattern" not in schema or re.fullmatch(schema["pattern"], value) is not None
    if isinstance(value, tuple):
        values = cast("tuple[object, ...]", value)
        few, many = schema["minItems"], schema["maxItems"]
        return few <= len(values) <= many and all(_obeys(one, schema["items"]) for one in values)
    return True


def _is(value: object, name: str) -> bool:
    return type(value) is _TYPES[name]  # exactly: True is an int, too


def _array(least: int, most: int, items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


def one_of(*words: str) -> Rule:
    """Return the rule for one of some words."""
    return Rule(f"one of {', '.join(map(repr, words))}", {"type": "string", "enum": list(words)})


_PROPERTY: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[A-Za-z0-9_.@$-]{1,64}$"}
_WORD: Final = "^[A-Za-z0-9_.-]{1,32}$"
_LITERAL, _TOKEN = "[A-Za-z0-9_.:-]", r"\{ProcessId\}|\{Random\}"

CLIENT_ID: Final = Rule(
    "text with {PluginId} in it once, and at most {ProcessId} and {Random} besides letters, digits and '_', '-', '.', "
    "':', as in '{PluginId}_{Random}'",
    {
        "type": "string",
        "pattern": rf"^(?:{_LITERAL}|{_TOKEN}){{0,64}}\{{PluginId\}}(?:{_LITERAL}|{_TOKEN}){{0,64}}$",
    },
)
PROPERTY: Final = Rule("a property's name of 1 to 64 letters, digits and '_', '.', '@', '$', '-'", _PROPERTY)
PROPERTIES: Final = Rule("a list of 1 to 8 properties' names", _array(1, 8, _PROPERTY))
SWITCH: Final = Rule("true or false", {"type": "boolean"})


def words(count: int, of: str, *, numbers: bool = False) -> Rule:
    """Return the rule for a list of exactly so many words, or numbers too where they are allowed."""
    kinds: Any = ["string", "integer"] if numbers else "string"
    said = f"a list of {count} words{' or whole numbers' if numbers else ''}, {of}"
    return Rule(said, _array(count, count, {"type": kinds, "pattern": _WORD}))
