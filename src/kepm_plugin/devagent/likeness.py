"""What the local agent is like where the vendor's pages leave it open (kepm-facts, sections 2.3, 2.6, 4 and 9).

Written from those gaps and not from the framework, whose guesses are elsewhere and under other names: an agent that
guessed along would agree with every mistake.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Final, Literal, cast, get_args, get_origin

from kepm_plugin.errors import UsageError

Spelling = Literal["dotnet", "json", "native"]
Single = Literal["object", "bare", "text"]

_SUFFIX: Final = "[^_]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """One agent that may be the real one.

    Attributes:
        put_name: Property of `PluginSettingValue` that has the value.
        put_casing: How a property's name is compared: in `any` casing, as ASP.NET does by default, or the `exact` one.
        put_types: What a value may be: `any` of string, number and boolean, or a `string` only.
        put_tier: Who may write settings: a `plugin` too, or an `admin` only, so that plugins get 403 on PUT.
        single: How one setting is answered: an `object` with `single_name`, a `bare` JSON string, or `text`/plain.
        single_name: Property of that object that has the value.
        spelling: How GET of all settings shows what is no string: `dotnet` (`"True"`), `json` (`"true"`), or `native`,
            without quotes.
        client_id: The one client id that is accepted: `{PluginId}` stands for the id, `{Suffix}` for anything without
            `_`. Empty: the id, or parts joined by `_` of which one is the id.
        log_time, log_level, log_message, log_source: Properties without which KeeperLogger takes no record, in exact
            casing. Empty: not needed, and any usual name will do.
        log_levels: The levels that KeeperLogger takes. Empty: any.
        correlation: Property that ties a response to the command that `send` sends.
        answer_ok, answer_progress: Properties by which `send` tells a response from an interim report.
    """

    put_name: str = "value"
    put_casing: Literal["any", "exact"] = "any"
    put_types: Literal["any", "string"] = "any"
    put_tier: Literal["plugin", "admin"] = "plugin"
    single: Single = "object"
    single_name: str = "value"
    spelling: Spelling = "dotnet"
    client_id: str = ""
    log_time: str = ""
    log_level: str = ""
    log_message: str = ""
    log_source: str = ""
    log_levels: tuple[str, ...] = ()
    correlation: str = "correlationId"
    answer_ok: str = "ok"
    answer_progress: str = "progress"

    @classmethod
    def of(cls, texts: Sequence[str], client_id: str | None = None) -> "Likeness":
        """Return what `NAME=VALUE` texts describe; a list is written with commas.

        Raises:
            UsageError: A name or a value is none.
        """
        given: dict[str, Any] = {} if client_id is None else {"client_id": client_id}
        for text in texts:
            name, sign, value = text.partition("=")
            if not sign or name not in _KINDS:
                near = get_close_matches(name, _KINDS, n=1)
                meant = f"{near[0]} is meant?" if near else f"give one of {', '.join(_KINDS)}"
                raise UsageError(f"--like {text!r}: write NAME=VALUE; {meant}")
            given[name] = _read(name, value)
        return replace(cls(), **given)

    def accepts(self, client_id: str, plugin_id: str) -> bool:
        """Tell whether a client id names a plugin."""
        if not self.client_id:
            return client_id == plugin_id or plugin_id in client_id.split("_")
        parts = re.split(r"(\{PluginId\}|\{Suffix\})", self.client_id)
        filled = {"{PluginId}": re.escape(plugin_id), "{Suffix}": _SUFFIX}
        return re.fullmatch("".join(filled.get(part, re.escape(part)) for part in parts), client_id) is not None

    def value_in(self, body: Mapping[str, object]) -> str | int | float | bool | None:
        """Return the value in the body of a PUT, None where there is none that fits."""
        for name, value in body.items():
            named = name == self.put_name if self.put_casing == "exact" else name.lower() == self.put_name.lower()
            if named and isinstance(value, str | int | float | bool):
                return value if self.put_types == "any" or isinstance(value, str) else None
        return None

    def lacking(self, record: Mapping[str, object]) -> str:
        """Return why KeeperLogger does not take a record, in words; empty where it does."""
        needed = (self.log_time, self.log_level, self.log_message, self.log_source)
        if missing := [name for name in needed if name and name not in record]:
            return f"it has no {', '.join(missing)}"
        level = str(record.get(self.log_level, ""))
        if self.log_level and self.log_levels and level not in self.log_levels:
            return f"its {self.log_level} is {level!r}, none of {', '.join(self.log_levels)}"
        return ""


class Role:
    """Whom the local agent plays. It may change its role while it runs; what was stored or sent before stays."""

    def __init__(self, like: Likeness) -> None:
        self.like = like


_KINDS: Final[Mapping[str, Any]] = {one.name: one.type for one in fields(Likeness)}


def _read(name: str, text: str) -> object:
    kind = _KINDS[name]
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(kind) is Literal and text not in get_args(kind):
        words = cast("tuple[str, ...]", get_args(kind))
        raise UsageError(f"--like {name}={text}: give one of {', '.join(words)}")
    return text
