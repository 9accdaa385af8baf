"""Any event as a record: values become JSON values, within a budget of characters.

Foreign code behind `str` and `repr` may raise, lie or log; none of that gets out.
"""

import math
import traceback
from collections.abc import Callable, Collection, Mapping
from datetime import date
from itertools import islice
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from ..contract import Contract
from ._levels import level_word
from ._record import Event, Record, stamp
from ._redactor import MASK, Redactor, attempt, holds_secret

MAX_RECORD: Final = 32 * 1024
"""Bytes of one record's JSON, at most."""

_ROOMY: Final = MAX_RECORD * 3 // 4  # characters: enough for all but text that grows in UTF-8 or in escapes
_TIGHT: Final = MAX_RECORD // 8  # characters: fits however it grows, six bytes (`\u0000`) being the worst
_NODE: Final = 8  # characters that quotes, comma, colon and spaces of one value are counted for
_DEPTH: Final = 6
_KEY: Final = 200


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
        return Record(stamp(event.when), level_word(event.level), message, fields)

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
            masked = value is not None and value is not True and value is not False and holds_secret(key)
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
