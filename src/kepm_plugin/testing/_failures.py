"""What fails in a plugin under test: collected from the framework's own log, where each failure is told once."""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from kepm_plugin.errors import PayloadMismatch

_LOGGER: Final = "kepm_plugin"

_watching: ContextVar["Failures | None"] = ContextVar("kepm_plugin.testing", default=None)
"""Whose plugin runs here: several may run in one test, and they log to the same loggers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One thing that went wrong in a plugin under test."""

    name: str
    """The handler's class, or the method of the plugin."""
    error: BaseException
    """What was raised; `PayloadMismatch` or `TimeoutError` where the framework gave the message up."""
    topic: str | None = None
    """The message's topic, where there was a message."""

    def __str__(self) -> str:
        on = "" if self.topic is None else f" on {self.topic!r}"
        return f"{self.name}{on}: {type(self.error).__name__}: {self.error}"


class Failures(logging.Handler):
    """What failed in one plugin so far, and what of it the test has looked at."""

    def __init__(self, told: Callable[[], object]) -> None:
        super().__init__(logging.WARNING)
        self.is_command: Callable[[str], bool] = lambda _topic: False
        """Whether a topic is that of a command, whose caller is told what does not fit."""
        self._told = told
        self._found: list[Failed] = []
        self._looked = 0

    @contextmanager
    def collecting(self) -> Generator[None]:
        """Take what is logged meanwhile."""
        logger = logging.getLogger(_LOGGER)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    @contextmanager
    def here(self) -> Generator[None]:
        """Take what is done inside for this plugin's."""
        token = _watching.set(self)
        try:
            yield
        finally:
            _watching.reset(token)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record, if it tells of a failure."""
        if _watching.get() is self and (failed := self._failed(record)) is not None:
            self._found.append(failed)
            self._told()

    def _failed(self, record: logging.LogRecord) -> Failed | None:
        fields: dict[str, Any] = vars(record)
        topic, event = fields.get("topic"), record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if event == "message.mismatched" and not self.is_command(fields["topic"]):
            error = PayloadMismatch(fields["reason"])
        elif event == "handler.timed_out":
            error = TimeoutError(f"the handler did not end within {fields['seconds']:g} s")
        name = fields.get("handler") or fields.get("method")
        return None if error is None or name is None else Failed(name, error, topic)

    def look(self) -> list[Failed]:
        """Return all so far; the test has seen them then."""
        self._looked = len(self._found)
        return self._found.copy()

    def unseen(self) -> Sequence[Failed]:
        """Return what the test has not looked at."""
        return self._found[self._looked :]


def complaint(unseen: Sequence[Failed]) -> AssertionError:
    """Return the error that fails a test that did not look."""
    told = "\n".join(f"  {one}" for one in unseen)
    error = AssertionError(
        f"{len(unseen)} failure(s) in the plugin that the test has not looked at:\n{told}\n"
        "Where they are meant, look at host.errors before the block ends, or pass strict=False."
    )
    errors = [one.error for one in unseen]
    error.__cause__ = errors[0] if len(errors) == 1 else BaseExceptionGroup("in the plugin", errors)
    return error
