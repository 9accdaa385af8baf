"""The usual event, a short text with a few scalars: kept as it is for a moment, and made into a record later, in bulk.

Nothing of it can change meanwhile, and no foreign code is called for it. What becomes of it is what `recorded` makes of
any event; here only less has to be looked at.
"""

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any, Final, TypeAlias

from ..contract import Contract
from ._levels import level_word
from ._record import Event, encoded, own_names, stamp
from ._redactor import Redactor, holds_secret
from ._telling import MAX_RECORD, recorded

FlatEvent: TypeAlias = tuple[float, int, str, str, Mapping[str, str | int | float | bool | None]]
"""When, level, logger, message and fields, as in `Event`; each text and number of exactly these types. A bare tuple: it
is made for each log call."""

_FIELDS: Final = 32
_TEXT: Final = 1_000  # characters of all texts together: a record of no more is never cut
_KEY: Final = 50
_KEYS: Final = 1_000  # names of fields that are remembered
_INTEGER: Final = 2**63
_STR: Final = frozenset({str})


class FlatRecords:
    """Tells flat events from others, and makes their records."""

    def __init__(self, redactor: Redactor, source: str, contract: Contract, special: Collection[str] = ()) -> None:
        """Make one.

        Args:
            redactor: Knows the secrets.
            source: As in `recorded`.
            contract: The form of a record.
            special: Fields by which an event is no flat one.
        """
        self._redactor, self._source, self._contract = redactor, source, contract
        own = own_names(contract)
        self._not_ordinary = {*own, *special}
        self._ordinary: set[str] = set()
        self._logger = "logger_" if "logger" in own else "logger"

    def holds(self, logger: object, message: object, fields: Mapping[str, Any]) -> bool:
        """Tell whether an event is flat."""
        if type(message) is not str or type(logger) is not str or len(fields) > _FIELDS:
            return False
        size = len(message) + len(logger)
        for value in fields.values():
            # Not isinstance: what derives from these has code of its own.
            kind = type(value)  # pyright: ignore[reportUnknownVariableType]
            if kind is str:
                size += len(value)
            elif kind is int:
                if not -_INTEGER < value < _INTEGER:
                    return False
            elif kind is float:
                if not isfinite(value):
                    return False
            elif kind is not bool and value is not None:
                return False
        if not _STR.issuperset(map(type, fields)):
            return False
        return size <= _TEXT and (self._ordinary.issuperset(fields) or all(map(self._is_ordinary, fields)))

    def _is_ordinary(self, key: str) -> bool:
        """Tell whether a field of that name is told under it, whatever its value; and remember it."""
        if len(key) > _KEY or key in self._not_ordinary or holds_secret(key):
            return False
        if len(self._ordinary) >= _KEYS:
            self._ordinary.clear()
        self._ordinary.add(key)
        return True

    def encoded(self, event: FlatEvent) -> bytes:
        """Return the KeeperLogger record of a flat event; its secrets are those that `redactor` knows by now."""
        when, level, logger, message, fields = event
        redactor = self._redactor
        if redactor.is_idle or not redactor.may_touch([message, logger, *fields, *map(str, fields.values())]):
            made = self._contract.log_record(
                timestamp=stamp(when),
                level=level_word(level),
                source=self._source,
                message=message,
                fields={self._logger: logger, **fields} if logger else fields,
            )
            data = encoded(made)
            if len(data) <= MAX_RECORD:
                return data
        return recorded(Event(when, level, logger, message, (), fields), redactor, self._source, self._contract)[1]
