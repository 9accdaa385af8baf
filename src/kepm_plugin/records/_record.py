"""What was logged, and what is told of it."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from ..contract import ASSUMED, Contract

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def own_names(contract: Contract) -> frozenset[str]:
    """Return the properties that every record has."""
    return frozenset(
        {
            contract.log_timestamp_field,
            contract.log_level_field,
            contract.log_source_field,
            contract.log_message_field,
        }
    )


def stamp(when: float) -> str:
    """Return a moment, in seconds since the epoch, as ISO 8601 in UTC with milliseconds."""
    second, micros = divmod(round(when * 1e6), 1_000_000)
    return f"{_of_second(second)}.{micros // 1000:03d}Z"


@lru_cache(maxsize=4)
def _of_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def encoded(made: object) -> bytes:
    """Return JSON values as JSON, in UTF-8; half of a surrogate pair becomes a question mark."""
    try:
        return msgspec.json.encode(made)
    except UnicodeEncodeError:
        return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Event(msgspec.Struct, frozen=True):
    """What was logged, as it was handed in.

    `when` is seconds since the epoch, `level` a number of the logging module, `args` what `%` fills the message with.
    """

    when: float
    level: int
    logger: str
    message: object
    args: object = ()
    fields: Mapping[str, object] = {}
    exception: BaseException | None = None

    def with_field(self, name: str, value: object) -> "Event":
        """Return the event with one more field."""
        return msgspec.structs.replace(self, fields={**self.fields, name: value})


class Record(msgspec.Struct, frozen=True):
    """What is told of an event: JSON values without secrets."""

    timestamp: str
    level: str
    message: str
    fields: Mapping[str, object]

    def encoded(self, source: str, contract: Contract = ASSUMED) -> bytes:
        """Return the KeeperLogger record."""
        fields, own = self.fields, own_names(contract)
        if not own.isdisjoint(fields):  # They would be lost.
            fields = {f"{name}_" if name in own else name: value for name, value in fields.items()}
        made = contract.log_record(
            timestamp=self.timestamp, level=self.level, source=source, message=self.message, fields=fields
        )
        return encoded(made)

    def line(self) -> str:
        """Return it for people: one line, without control characters."""
        parts = [self.timestamp, f"{self.level:<11}", str(self.fields.get("logger", "")), self.message]
        parts += [
            f"{name}={_shown(value)}" for name, value in self.fields.items() if name not in ("logger", "exception")
        ]
        if "exception" in self.fields:
            parts.append(f"| {self.fields['exception']}")
        return _CONTROL.sub(_escaped, " ".join(part for part in parts if part))


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value and not set(value) & set(" =\"'")
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _escaped(match: re.Match[str]) -> str:
    return " | " if match[0] == "\n" else match[0].encode("unicode_escape").decode()
