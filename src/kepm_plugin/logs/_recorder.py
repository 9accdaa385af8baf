"""The end of every log call: what becomes of an event, now or a moment later."""

import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from kepm_plugin.logpipe import Fallback, LogPipe
from kepm_plugin.records import Event, FlatEvent, FlatRecords, Record, Redactor, attempt

from ._transport import Rate, carries_records

SPECIAL: Final = frozenset({"event", "exc_info", "stack_info"})
"""Fields of structlog that are no fields of a record."""

_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class _Making(threading.local):
    """`busy` while this thread makes records."""

    busy = False


_making = _Making()


class Recorder(logging.Handler):
    """Takes what both libraries are given; a handler of the root logger.

    A flat event (`FlatRecords`) that no person is to read now becomes a record when the pipe is emptied; every other
    one at once, as foreign code and tracebacks belong to the moment and the thread of the call.

    Attributes:
        threshold: The least level that is told, a number of the logging module.
        context: Returns the fields that are bound for the task; a new dictionary each time.
        add_stack: Puts the caller's stack into the fields of an event.
    """

    def __init__(
        self,
        pipe: LogPipe,
        fallback: Fallback,
        redactor: Redactor,
        make: Callable[[Event, bool], tuple[Record, bytes]],
        flat: FlatRecords,
        clock: Callable[[], float],
    ) -> None:
        """Make one.

        Args:
            pipe: Where records go.
            fallback: Where lines for people go.
            redactor: Is told to look for new secrets, before a record is made.
            make: Makes an event's record; without foreign code where the second argument is True.
            flat: Makes those of flat events.
            clock: Seconds since the epoch.
        """
        super().__init__()
        self.threshold = logging.INFO
        self.context: Callable[[], dict[str, Any]] = dict  # structlog brings its own
        self.add_stack: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self._pipe, self._fallback, self._redactor, self._make, self._clock = pipe, fallback, redactor, make, clock
        self._flat = flat
        self._rate = Rate()

    # --- stdlib logging -----------------------------------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record of stdlib logging, without the handler's lock: a signal handler would wait for it for ever."""
        if record.levelno >= self.threshold:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Turn a record of stdlib logging into one of ours; `extra` becomes fields."""
        fields, given = self.context(), vars(record)
        if not _OWN_ATTRIBUTES.issuperset(given):
            fields |= {key: value for key, value in given.items() if key not in _OWN_ATTRIBUTES}
        if record.stack_info:
            fields["stack"] = record.stack_info
        args: object = () if record.args is None else record.args
        error = record.exc_info[1] if record.exc_info else None
        when, level = record.created, record.levelno
        logger = record.name if type(record.name) is str else attempt(lambda: str(record.name), "")
        if error is not None or not self._waits(when, level, logger, record.msg, args, fields):
            self._tell(Event(when, level, logger, record.msg, args, fields, error))

    # --- structlog ----------------------------------------------------------------------------------------------------

    def say(self, level: int, logger: str, message: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        """Take an event of structlog; `fields`, some of which have a meaning of their own, become the recorder's."""
        message = "" if message is None else message
        for key, value in self.context().items():
            fields.setdefault(key, value)
        if self._waits(when := self._clock(), level, logger, message, args, fields):
            return
        if "event" in fields:
            fields["event_"] = fields.pop("event")
        if fields.get("stack_info"):
            fields = self.add_stack(fields)
        fields.pop("stack_info", None)
        error = _exception(fields.pop("exc_info", None))
        self._tell(Event(when, level, logger, message, args, fields, error))

    # --- both ---------------------------------------------------------------------------------------------------------

    def _waits(
        self, when: float, level: int, logger: str, message: object, args: object, fields: Mapping[str, Any]
    ) -> bool:
        """Leave an event to whoever empties the pipe; False where that cannot be."""
        # What is logged because records are made is made at once: else emptying the pipe would not come to an end.
        if _making.busy or self._fallback.is_wanted or carries_records(logger):
            return False
        if args:
            message = _filled(message, args)
        if not self._flat.holds(logger, message, fields):
            return False
        self._pipe.put_flat((when, level, logger, cast("str", message), fields))
        return True

    def _tell(self, event: Event) -> None:
        if carries_records(event.logger):
            if event.level < logging.WARNING:
                if self.threshold <= logging.DEBUG:
                    self._put(event, here_only=True)
                return
            suppressed = self._rate.admit(self._clock())
            if suppressed is None:
                return
            if suppressed:
                event = event.with_field("suppressed", suppressed)
        self._put(event)

    def _put(self, event: Event, *, here_only: bool = False) -> None:
        to_people = self._fallback.has_reader if here_only else self._fallback.is_wanted
        if here_only and not to_people:
            return
        nested = _making.busy
        _making.busy = True
        try:
            if not nested:
                self._redactor.refresh()
            made = attempt(lambda: self._make(event, nested), None) or attempt(
                lambda: self._make(_unmade(event), True), None
            )
        finally:
            _making.busy = nested
        if made is None:
            self._pipe.lose()
            return
        record, data = made
        if not here_only:
            self._pipe.put(data)
        if to_people:
            self._fallback.put(record.line())

    def make_flat(self, events: Sequence[FlatEvent]) -> Sequence[bytes | None]:
        """Make the records of flat events; None where that fails."""
        nested = _making.busy
        _making.busy = True
        try:
            self._redactor.refresh()
            none: Sequence[bytes | None] = ()
            made = attempt(lambda: list(map(self._flat.encoded, events)), none)
            return made or [attempt(partial(self._flat.encoded, event), None) for event in events]
        finally:
            _making.busy = nested


def _filled(message: object, args: object) -> str | None:
    """Return a message with its `%` arguments, where no foreign code is needed for it; None otherwise."""
    if (
        type(message) is str
        and type(args) is tuple
        and _SCALARS.issuperset(map(type, cast("tuple[object, ...]", args)))
    ):
        return attempt(lambda: message % args, None)
    return None


def _unmade(event: Event) -> Event:
    return Event(event.when, event.level, event.logger, "a log record could not be made")


def _exception(given: object) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return next((part for part in cast("tuple[object, ...]", given) if isinstance(part, BaseException)), None)
    return sys.exc_info()[1] if given else None
