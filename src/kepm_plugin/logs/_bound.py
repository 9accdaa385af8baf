"""structlog's side: the logger that `structlog.get_logger()` gives, and its installation.

Between the method that is called and the recorder there is no chain of processors: what a processor would be asked for
at each call, the recorder does itself. A chain that somebody has changed, as `structlog.testing.capture_logs` does, is
gone through as structlog does.
"""

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn, cast

import structlog
from structlog.contextvars import get_contextvars
from structlog.processors import StackInfoRenderer

from kepm_plugin.contract import LOG_LEVELS
from kepm_plugin.records import level_word

from ._recorder import Recorder

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


class _End:
    """The only processor of our chain."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, wrapped: object, method: str, fields: MutableMapping[str, Any]) -> NoReturn:
        """Take an event from a chain that has got more processors; nothing is left for the wrapped logger."""
        level = _METHODS.get(method, logging.INFO)
        if level >= self.recorder.threshold:
            told = dict(fields)
            message, args = told.pop("event", None), told.pop("positional_args", ())
            name = wrapped.name if isinstance(wrapped, _Named) else ""
            self.recorder.say(level, name, message, args, told)
        raise structlog.DropEvent


class _Named:
    """What structlog wraps: only the name that `get_logger` was given."""

    def __init__(self, *names: object) -> None:
        self.names = names
        self.name = str.__str__(names[0]) if names and isinstance(names[0], str) else ""


class _Bound(structlog.BoundLoggerBase):
    """What `structlog.get_logger()` gives: the usual methods, and `trace`, each with a twin for `await`.

    The level is that of the recorder, so that it changes for loggers, too, that were bound before. `%` arguments are
    left to the recorder, where a wrong one does no harm. A logger that is used after the recorder's time goes by the
    configuration that is then in force: structlog keeps the loggers of modules once they were used.
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
        processors = cast("list[object]", self._processors)
        return processors[-1].recorder.threshold if processors and type(processors[-1]) is _End else logging.NOTSET

    def _say(self, method: str, level: int, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        processors = cast("list[object]", self._processors)
        if len(processors) == 1 and type(end := processors[0]) is _End:
            recorder = end.recorder
            if level >= recorder.threshold:
                context = self._context
                recorder.say(level, self._logger.name, event, args, {**context, **fields} if context else fields)
        elif level >= self.get_effective_level():
            self._say_by_chain(method, event, args, fields)

    def _say_by_chain(self, method: str, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        in_force = structlog.get_config()
        if in_force["wrapper_class"] is not _Bound or in_force["processors"] is not self._processors:
            wrapped = in_force["logger_factory"](*self._logger.names)
            other = in_force["wrapper_class"](wrapped, in_force["processors"], self._context)
            getattr(other, method)(event, *args, **fields)
            return
        if "event" in fields:
            fields["event_"] = fields.pop("event")
        if args:
            fields["positional_args"] = args
        with suppress(structlog.DropEvent):
            self._process_event(method, cast("str", event), fields)


def _method(name: str, level: int) -> tuple[Callable[..., None], Callable[..., Awaitable[None]]]:
    def method(self: Any, event: object = None, /, *args: object, **fields: Any) -> None:
        self._say(name, level, event, args, fields)

    def exception(self: Any, event: object = None, /, *args: object, **fields: Any) -> None:
        fields.setdefault("exc_info", True)
        self._say(name, level, event, args, fields)

    log = exception if name == "exception" else method

    async def awaited(self: Any, event: object = None, /, *args: object, **fields: Any) -> None:
        log(self, event, *args, **fields)  # nothing in it blocks

    return log, awaited


for _name, _level in _METHODS.items():
    for _prefix, _made in zip(("", "a"), _method(_name, _level), strict=True):
        setattr(_Bound, _prefix + _name, _made)


_add_stack: Final = StackInfoRenderer([__name__.rpartition(".")[0]])


def _with_stack(fields: dict[str, Any]) -> dict[str, Any]:
    return dict(_add_stack(None, "", fields))


@contextmanager
def structlog_to(recorder: Recorder) -> Generator[None]:
    """Have every logger of structlog end at a recorder; at the end structlog is configured as before."""
    recorder.context, recorder.add_stack = get_contextvars, _with_stack
    before = structlog.get_config()
    # The list itself stays: loggers that were bound already hold it (structlog.testing.capture_logs does the same).
    held: object = before["processors"]
    chain: list[Any] = held if isinstance(held, list) else list(before["processors"])  # pyright: ignore[reportUnknownVariableType]
    processors = chain.copy()
    chain[:] = [_End(recorder)]
    structlog.configure(chain, wrapper_class=_Bound, logger_factory=_Named, cache_logger_on_first_use=True)
    try:
        yield
    finally:
        chain[:] = processors
        structlog.configure(**before)
