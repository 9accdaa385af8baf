"""What one log record is: bounded, free of secrets, and made of whatever an author's code handed in.

Pure but for the foreign code behind `str` and `repr`, which may raise, lie or log; none of that gets out. Knows nothing
of loggers, threads or where a record goes.
"""

import json
import math
import re
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, quote_plus
from uuid import UUID

from msgspec import Struct, field

from kepm_plugin.contract import ASSUMED, LOG_LEVELS, Contract
from kepm_plugin.errors import SettingsError

__all__ = ["LEVELS", "MAX_RECORD", "Event", "Record", "Redactor", "attempt", "level_number", "level_word", "recorded"]

T = TypeVar("T")

LEVELS: Final[Mapping[str, int]] = MappingProxyType(dict(zip(LOG_LEVELS, (5, 10, 20, 30, 40, 50), strict=True)))
"""The agent's level words with the numbers of the logging module."""

MAX_RECORD: Final = 32 * 1024
"""Bytes of one record's JSON, at most."""

MASK: Final = "***"

_ROOMY: Final = MAX_RECORD * 3 // 4  # characters: enough for all but text that grows in UTF-8 or in escapes
_TIGHT: Final = MAX_RECORD // 8  # characters: fits however it grows, six bytes (`\u0000`) being the worst
_NODE: Final = 8  # characters that quotes, comma, colon and spaces of one value are counted for
_DEPTH: Final = 6
_KEY: Final = 200
_SHORTEST: Final = 4  # a shorter secret would turn ordinary words into stars
_SECRET_KEY: Final = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey", "privatekey"),
    *("authorization", "cookie", "credential"),
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def attempt(call: Callable[[], T], otherwise: T) -> T:
    """Return what a call into foreign code returns, or `otherwise` where it raises."""
    try:
        return call()
    except Exception:  # noqa: BLE001  an author's __str__ may raise anything, and logging must not
        return otherwise


def level_number(word: str) -> int:
    """Return the logging module's number of one of the agent's level words, in any casing.

    Raises:
        SettingsError: It is no such word.
    """
    for name, number in LEVELS.items():
        if name.casefold() == word.strip().casefold():
            return number
    rule = f"one of {', '.join(LEVELS)}"
    raise SettingsError(f"the log level must be {rule}, not {word!r}", rule=rule)


def level_word(number: int) -> str:
    """Return the agent's word for a level of the logging module: the severest that is not above it."""
    return next((word for word in reversed(LOG_LEVELS) if number >= LEVELS[word]), LOG_LEVELS[0])


class Redactor:
    """Knows the secrets of the moment, and what a key that holds one looks like."""

    def __init__(self, secrets: Callable[[], Collection[str]]) -> None:
        self._secrets = secrets
        self._values: frozenset[str] = frozenset()
        self._search: tuple[re.Pattern[str], int] | None = None  # with the length of what it finds, at most

    def refresh(self) -> None:
        """Ask for the secrets again; a settings change may have brought new ones. The last known stay on failure."""
        values = attempt(lambda: frozenset(map(str, self._secrets())) - {""}, self._values)
        if values == self._values:
            return
        spelt = {way for text in values for part in _parts(text) for way in _spelt(part)}
        self._search = (_any_of(spelt), max(map(len, spelt))) if spelt else None
        self._values = values

    def text(self, text: str, limit: int) -> str:
        """Return at most `limit` characters of a text, secrets masked; a cut never leaves a part of one."""
        if text in self._values:
            return MASK
        if self._search is None:
            return text[:limit]
        pattern, longest = self._search
        if len(text) <= limit:
            return pattern.sub(MASK, text)
        # Only a window is searched. A secret that the window cuts is within its last characters, which go.
        window = pattern.sub(MASK, text[: limit + longest])
        return window[: max(0, len(window) - longest)][:limit]

    def knows(self, text: str) -> bool:
        """Whether a text is, as a whole, a secret value; also a short one."""
        return text in self._values


@lru_cache(maxsize=1024)
def _holds_secret(key: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", key.casefold())
    return any(word in plain for word in _SECRET_KEY)


def _parts(secret: str) -> set[str]:
    """Return a secret and each of its lines, as far as they are long enough.

    A key of many lines seldom stays in one piece: the traceback of an exception group indents each line of a message.
    """
    return {part for part in (secret, *map(str.strip, secret.splitlines())) if len(part) >= _SHORTEST}


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Return what finds the longest of some texts. They are grouped by how they begin: it is searched for often."""
    rests: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        rests.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?:{'|'.join(some)})" for first, some in rests.items()))


def _spelt(text: str) -> set[str]:
    """Return a text as it is, and as it reads inside a repr (of bytes too), a JSON text, a URL or Base64."""
    data = text.encode("utf-8", "replace")
    ways = {repr(text)[1:-1], repr(data)[2:-1], *_in_base64(data)}
    ways |= {quote(text, errors="replace"), quote(text, safe="", errors="replace"), quote_plus(text, errors="replace")}
    ways |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return ways | {text} | {way.replace("'", "\\'") for way in ways}


def _in_base64(data: bytes) -> set[str]:
    """Return what data is in the Base64 of something that holds it, as of "user:password"; it may begin at any byte."""
    ways: set[str] = set()
    for before in range(3):
        # A character is six bits: those that hold bits of a neighbour differ from case to case.
        held = slice(-(-before * 8 // 6), (before + len(data)) * 8 // 6)
        ways |= {encode(bytes(before) + data).decode()[held] for encode in (b64encode, urlsafe_b64encode)}
    return {way for way in ways if len(way) >= _SHORTEST}


class Event(Struct, frozen=True):
    """What was logged, as it was handed in.

    `when` is seconds since the epoch, `level` a number of the logging module, `args` what `%` fills the message with.
    """

    when: float
    level: int
    logger: str
    message: object
    args: object = ()
    fields: Mapping[str, object] = field(default_factory=dict[str, object])
    exception: BaseException | None = None


class Record(Struct, frozen=True):
    """What is told of an event: JSON values without secrets."""

    timestamp: str
    level: str
    message: str
    fields: Mapping[str, object]

    def encoded(self, source: str, contract: Contract = ASSUMED) -> bytes:
        """Return the KeeperLogger record."""
        own = {
            contract.log_timestamp_field,
            contract.log_level_field,
            contract.log_source_field,
            contract.log_message_field,
        }
        # A field that has the name of one of the record's own would be lost.
        fields = {f"{name}_" if name in own else name: value for name, value in self.fields.items()}
        made = contract.log_record(
            timestamp=self.timestamp, level=self.level, source=source, message=self.message, fields=fields
        )
        return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

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


def recorded(
    event: Event, redactor: Redactor, source: str, contract: Contract, *, plain: bool = False
) -> tuple[Record, bytes]:
    """Return an event's record, and its JSON of at most `MAX_RECORD` bytes.

    `plain` calls no foreign code: for an event that such code logs while another record is being made.
    """
    record = _Telling(redactor, _ROOMY, plain=plain).record(event)
    data = record.encoded(source, contract)
    if len(data) > MAX_RECORD:
        record = _Telling(redactor, _TIGHT, plain=plain).record(event)
        data = record.encoded(source, contract)
    return record, data


class _Telling:
    """Turns one event's values into JSON values, with a budget of characters."""

    def __init__(self, redactor: Redactor, budget: int, *, plain: bool) -> None:
        self._redactor, self._budget, self._plain = redactor, budget, plain
        self._truncated = False

    def record(self, event: Event) -> Record:
        most = self._budget
        fields: dict[str, object] = {}
        message = self._text(self._message(event), most // 3)
        if event.logger:
            fields["logger"] = self._text(event.logger, _KEY)
        exception = "" if event.exception is None else self._traceback(event.exception, most // 2)
        fields |= self._members(event.fields)
        if exception:
            fields["exception"] = exception
        if self._truncated:
            fields["truncated"] = True
        stamp = datetime.fromtimestamp(event.when, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        return Record(stamp, level_word(event.level), message, fields)

    def _message(self, event: Event) -> str:
        message = event.message if type(event.message) is str else self._foreign(event.message, str)
        if self._plain:
            return message
        filled = attempt(lambda: message % event.args if event.args else message, None)
        return f"{message} {self._foreign(event.args, repr)}" if filled is None else filled

    def _traceback(self, error: BaseException, limit: int) -> str:
        if self._plain:
            return type(error).__name__
        lines = attempt(lambda: traceback.format_exception(error), [f"{type(error).__name__}: its text failed"])
        whole = self._redactor.text(text := "".join(lines).rstrip(), len(text))
        if len(whole) > limit:  # where it began and what it was are at the two ends
            self._truncated = True
            whole = f"{whole[: limit // 4]}\n…\n{whole[-limit * 3 // 4 :]}"
        self._budget -= len(whole) + _NODE
        return whole

    def _text(self, text: str, limit: int) -> str:
        limit = max(0, min(limit, self._budget))
        told = self._redactor.text(text, limit)
        if len(text) > limit:
            self._truncated, told = True, told + "…"
        self._budget -= len(told) + _NODE
        return told

    def _foreign(self, value: object, way: Callable[[object], str]) -> str:
        name = type(value).__name__
        return f"<{name}>" if self._plain else attempt(lambda: way(value), f"<{name}: no text>")

    def _members(self, mapping: Mapping[Any, object], depth: int = 0) -> dict[str, object]:
        told: dict[str, object] = {}
        count = self._budget // _NODE + 1
        nothing: list[tuple[Any, object]] = [("items", "<no items>")]
        for raw, value in attempt(lambda: list(islice(mapping.items(), count)), nothing):
            if self._budget <= 0:
                self._truncated = True
                break
            key = self._text(raw if type(raw) is str else self._foreign(raw, str), _KEY)
            masked = value is not None and value is not True and value is not False and _holds_secret(key)
            told[key] = MASK if masked else self._value(value, depth + 1)
        return told

    def _value(self, value: object, depth: int) -> object:
        kind = type(value)  # not isinstance: an object may lie about its class
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(cast("str", value), self._budget)
        if kind is int or kind is float:
            return self._number(cast("float", value))
        self._budget -= _NODE
        if issubclass(kind, bytes | bytearray):
            return self._text(self._foreign(value, self._decoded), self._budget)
        if issubclass(kind, Mapping | list | tuple | set | frozenset) and not self._plain:
            if depth >= _DEPTH or self._budget <= 0:  # deep, or a circle
                self._truncated = True
                return "…"
            if issubclass(kind, Mapping):
                return self._members(cast("Mapping[object, object]", value), depth)
            return self._items(cast("Collection[object]", value), depth)
        way = str if issubclass(kind, str | PurePath | date | UUID) else repr
        return self._text(self._foreign(value, way), self._budget)

    def _decoded(self, value: object) -> str:
        return bytes(cast("bytes", value)[: self._budget + 1]).decode("utf-8", "backslashreplace")

    def _number(self, value: float) -> object:
        self._budget -= 3 * _NODE
        if isinstance(value, int) and value.bit_length() > 64:
            return f"<int of {value.bit_length()} bits>"
        if self._redactor.knows(str(value)):
            return MASK
        return value if math.isfinite(value) else str(value)

    def _items(self, values: Collection[object], depth: int) -> list[object]:
        told: list[object] = []
        count = self._budget // _NODE + 1
        nothing: list[object] = ["<no items>"]
        for value in attempt(lambda: list(islice(values, count)), nothing):
            if self._budget <= 0:
                self._truncated = True
                break
            told.append(self._value(value, depth + 1))
        return told
