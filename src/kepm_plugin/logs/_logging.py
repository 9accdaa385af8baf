"""Taking what is logged, for a time: both libraries, the pipe, and the level."""

import logging
import time
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from kepm_plugin.contract import ASSUMED, Contract
from kepm_plugin.logpipe import Fallback, LogPipe
from kepm_plugin.records import Event, FlatRecords, Record, Redactor, level_number, level_word, recorded

from ._arrival import on_arrival
from ._recorder import SPECIAL, Recorder


class LogControl:
    """What can be changed while logs are taken."""

    def __init__(self, recorder: Recorder, fallback: Fallback) -> None:
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
        pipe: Where the records go; its `notice` is set to a record of the same form, and it is told how to make those
            of flat events.
        source: The plugin's id, for `Contract.log_source_field`.
        level: The least level that is told, one of the agent's words.
        contract: The form of a record.
        secrets: Returns the texts that must not be seen, now or in what was logged a moment ago: a record may be made
            when the pipe is emptied. It is called from any thread. A text shorter than four characters is masked only
            where it is a whole value.
        fallback: The stream for people; the standard error of the moment unless given.
        clock: Seconds since the epoch.

    Raises:
        SettingsError: `level` is no level.
    """

    def make(event: Event, plain: bool) -> tuple[Record, bytes]:
        return recorded(event, redactor, source, contract, plain=plain)

    def notice(dropped: int) -> bytes:
        text = f"{dropped} records dropped"
        return make(Event(clock(), logging.WARNING, "kepm_plugin.logs", text, fields={"dropped": dropped}), True)[1]

    redactor, lines = Redactor(secrets), Fallback(fallback)
    recorder = Recorder(pipe, lines, redactor, make, FlatRecords(redactor, source, contract, SPECIAL), clock)
    root, pipe.notice, pipe.make_flat = logging.getLogger(), notice, recorder.make_flat
    level_before = root.level
    control = LogControl(recorder, lines)
    control.level = level
    try:
        with lines.writing(), ExitStack() as taken, on_arrival("structlog", lambda: _take_structlog(taken, recorder)):
            root.addHandler(recorder)
            try:
                yield control
            finally:
                root.removeHandler(recorder)
    finally:
        root.setLevel(level_before)


def _take_structlog(taken: ExitStack, recorder: Recorder) -> None:
    from ._bound import structlog_to  # it imports structlog

    taken.enter_context(structlog_to(recorder))
