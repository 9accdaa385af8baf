"""structlog and stdlib logging, both ending in one bounded pipe of KeeperLogger records. Only importer of structlog.

A log call never blocks and never raises, whatever it is given. How records leave the pipe is not known here.

No feedback: what carries records out (`TRANSPORT`) may log itself. Below Warning its records stay on this machine, on
the fallback stream, and only at level Debug or Trace; from Warning on they pass at a bounded rate. A record that is
logged while another one is being made, by an author's `__repr__` for example, is made without calling such code again.
"""

import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, NoReturn, TextIO, cast

import structlog
from msgspec.structs import replace
from structlog.contextvars import get_contextvars, merge_contextvars

from kepm_plugin.contract import ASSUMED, LOG_LEVELS, Contract
from kepm_plugin.logpipe import Fallback, LogPipe
from kepm_plugin.records import Event, Record, Redactor, attempt, level_number, level_word, recorded

__all__ = ["TRANSPORT", "LogControl", "LogPipe", "logging_to"]

TRANSPORT: Final = (
    "kepm_plugin.broker",
    "kepm_plugin.link",
    "kepm_plugin.outbox",
    "kepm_plugin.logs",
    "aiomqtt",
    "paho",
    "httpx",
    "httpcore",
    "asyncio",
)
"""Loggers, with those below them, that may log because a record is sent."""

_BURST: Final = 20  # records of the transport that pass at once
_REFILL: Final = 5.0  # seconds until one more may
_METHODS: Final[Mapping[str, int]] = {
    "trace": 5,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
_BY_WORD: Final[Mapping[str, str]] = dict(
    zip(LOG_LEVELS, ("trace", "debug", "info", "warning", "error", "critical"), strict=True)
)
_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_making = threading.local()  # .busy while this thread makes a record


@lru_cache(maxsize=1024)
def _carries_records(logger: str) -> bool:
    return any(logger == name or logger.startswith(f"{name}.") for name in TRANSPORT)


class _Rate:
    """A bucket of `_BURST` tokens, one more each `_REFILL` seconds."""

    def __init__(self) -> None:
        self._tokens, self._last = float(_BURST), 0.0
        self._suppressed = 0

    def admit(self, now: float) -> int | None:
        """Return None to suppress a record, else how many were suppressed since the last one."""
        self._tokens = min(_BURST, self._tokens + max(0.0, now - self._last) / _REFILL)
        self._last = now
        if self._tokens < 1:
            self._suppressed += 1
            return None
        self._tokens -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class _Recorder(logging.Handler):
    """The end of both chains: a handler of the root logger, and the last processor of structlog."""

    def __init__(
        self,
        pipe: LogPipe,
        fallback: Fallback,
        redactor: Redactor,
        make: Callable[[Event, bool], tuple[Record, bytes]],
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.threshold = logging.INFO
        self._pipe, self._fallback, self._redactor, self._make, self._clock = pipe, fallback, redactor, make, clock
        self._rate = _Rate()

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record of stdlib logging, without the handler's lock: a signal handler would wait for it for ever."""
        if record.levelno >= self.threshold:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Turn a record of stdlib logging into one of ours; `extra` becomes fields."""
        fields = get_contextvars() | {k: v for k, v in vars(record).items() if k not in _OWN_ATTRIBUTES}
        if record.stack_info:
            fields["stack"] = record.stack_info
        args = () if record.args is None else record.args
        error = record.exc_info[1] if record.exc_info else None
        self._tell(Event(record.created, record.levelno, record.name, record.msg, args, fields, error))

    def __call__(self, wrapped: object, method: str, fields: MutableMapping[str, Any]) -> NoReturn:
        """Take an event of structlog, as its last processor; nothing is left for the wrapped logger."""
        level = _METHODS.get(method, logging.INFO)
        if level >= self.threshold:
            message, args = fields.pop("event", ""), fields.pop("positional_args", ())
            error = _exception(fields.pop("exc_info", None))
            name = wrapped.name if isinstance(wrapped, _Named) else ""
            self._tell(Event(self._clock(), level, name, message, args, fields, error))
        raise structlog.DropEvent

    def _tell(self, event: Event) -> None:
        if _carries_records(event.logger):
            if event.level < logging.WARNING:
                if self.threshold <= logging.DEBUG:
                    self._put(event, here_only=True)
                return
            suppressed = self._rate.admit(self._clock())
            if suppressed is None:
                return
            if suppressed:
                event = replace(event, fields={**event.fields, "suppressed": suppressed})
        self._put(event)

    def _put(self, event: Event, *, here_only: bool = False) -> None:
        to_people = self._fallback.has_reader if here_only else self._fallback.is_wanted
        if here_only and not to_people:
            return
        nested = getattr(_making, "busy", False)
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


def _unmade(event: Event) -> Event:
    return Event(event.when, event.level, event.logger, "a log record could not be made")


def _exception(given: object) -> BaseException | None:
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return next((part for part in cast("tuple[object, ...]", given) if isinstance(part, BaseException)), None)
    return sys.exc_info()[1] if given else None


class _Named:
    """What structlog wraps: only the name that `get_logger` was given."""

    def __init__(self, *names: object) -> None:
        self.name = names[0] if names and isinstance(names[0], str) else ""


class _Bound(structlog.BoundLoggerBase):
    """What `structlog.get_logger()` gives: the usual methods, and `trace`, each with a twin for `await`.

    The level is that of the chain's end, so that it changes for loggers, too, that were bound before. `%` arguments are
    left to the end of the chain, where a wrong one does no harm.
    """

    def log(self, level: int, event: object = None, /, *args: object, **fields: Any) -> None:
        """Log at a level of the logging module."""
        self._say(_BY_WORD[level_word(level)], level, event, args, fields)

    async def alog(self, level: int, event: object = None, /, *args: object, **fields: Any) -> None:
        """Log at a level of the logging module."""
        self.log(level, event, *args, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Whether anything comes of logging at that level."""
        return level >= self.get_effective_level()

    def get_effective_level(self) -> int:
        """Return the least level that is told."""
        return int(getattr(cast("list[object]", self._processors)[-1], "threshold", logging.NOTSET))

    def _say(self, method: str, level: int, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        if level < self.get_effective_level():
            return
        if "event" in fields:
            fields["event_"] = fields.pop("event")
        if args:
            fields["positional_args"] = args
        with suppress(structlog.DropEvent):
            self._process_event(method, cast("str", event), fields)


def _method(name: str, level: int) -> tuple[Callable[..., None], Callable[..., Awaitable[None]]]:
    def method(self: Any, event: object = None, /, *args: object, **fields: Any) -> None:
        if name == "exception":
            fields.setdefault("exc_info", True)
        self._say(name, level, event, args, fields)

    async def awaited(self: Any, event: object = None, /, *args: object, **fields: Any) -> None:
        method(self, event, *args, **fields)  # nothing in it blocks

    return method, awaited


for _name, _level in _METHODS.items():
    for _prefix, _made in zip(("", "a"), _method(_name, _level), strict=True):
        setattr(_Bound, _prefix + _name, _made)


class LogControl:
    """What can be changed while logs are taken."""

    def __init__(self, recorder: _Recorder, fallback: Fallback) -> None:
        self._recorder, self._fallback = recorder, fallback

    @property
    def level(self) -> str:
        """The least level that is told, one of the agent's words; in any casing when set.

        Raises:
            SettingsError: When set to something else.
        """
        return level_word(self._recorder.threshold)

    @level.setter
    def level(self, word: str) -> None:
        self._recorder.threshold = level_number(word)
        logging.getLogger().setLevel(self._recorder.threshold)

    def fallback(self, on: bool) -> None:
        """Switch the lines for people: on while no record can leave. A terminal gets them always."""
        self._fallback.is_on = on


@contextmanager
def logging_to(
    pipe: LogPipe,
    *,
    source: str,
    level: str = "Information",
    contract: Contract = ASSUMED,
    secrets: Callable[[], Collection[str]] = frozenset[str],
    fallback: TextIO | None = None,
    clock: Callable[[], float] = time.time,
) -> Generator[LogControl]:
    """Send what structlog and stdlib logging are given to `pipe`, until the end; then restore both.

    Loggers made before, bound ones too, are heard. Handlers that others gave the root logger stay. The fallback stream
    is on at first.

    Args:
        pipe: Where the records go; its `notice` is set to a record of the same form.
        source: The plugin's id, for `Contract.log_source_field`.
        level: The least level that is told, one of the agent's words.
        contract: The form of a record.
        secrets: Returns the texts that must not be seen, now. It is called for each record, from any thread. One
            shorter than four characters is masked only where it is a whole value.
        fallback: The stream for people; the standard error of the moment unless given.
        clock: Seconds since the epoch.

    Raises:
        SettingsError: `level` is no level.
    """

    def make(event: Event, plain: bool) -> tuple[Record, bytes]:
        return recorded(event, redactor, source, contract, plain=plain)

    def notice(dropped: int) -> bytes:
        event = Event(clock(), logging.WARNING, __name__, f"{dropped} records dropped", fields={"dropped": dropped})
        return make(event, True)[1]

    redactor, lines = Redactor(secrets), Fallback(fallback)
    recorder = _Recorder(pipe, lines, redactor, make, clock)
    root, pipe.notice = logging.getLogger(), notice
    level_before = root.level
    control = LogControl(recorder, lines)
    control.level = level
    try:
        with lines.writing(), _structlog_to(recorder):
            root.addHandler(recorder)
            try:
                yield control
            finally:
                root.removeHandler(recorder)
    finally:
        root.setLevel(level_before)


@contextmanager
def _structlog_to(recorder: _Recorder) -> Generator[None]:
    before = structlog.get_config()
    # The list itself stays: loggers that were bound already hold it (structlog.testing.capture_logs does the same).
    held: object = before["processors"]
    chain: list[Any] = held if isinstance(held, list) else list(before["processors"])  # pyright: ignore[reportUnknownVariableType]
    processors = chain.copy()
    chain[:] = [merge_contextvars, structlog.processors.StackInfoRenderer([__name__]), recorder]
    structlog.configure(chain, wrapper_class=_Bound, logger_factory=_Named, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        chain[:] = processors
        structlog.configure(**before)
