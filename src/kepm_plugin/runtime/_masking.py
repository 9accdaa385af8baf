"""What is said on standard error past the log: an error that ends the process, or a thread. Secrets are masked."""

import sys
import threading
import traceback
from collections.abc import Callable, Collection
from types import TracebackType

from kepm_plugin.records import Redactor

from ._stop import say


class Masking:
    """Masks the secrets of the moment; `secrets` returns them, and is set once there are settings."""

    def __init__(self) -> None:
        self.secrets: Callable[[], Collection[str]] = frozenset[str]
        self._redactor = Redactor(lambda: self.secrets())

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        self._redactor.refresh()
        return self._redactor.text(text, len(text))

    def say_error(self, error: BaseException) -> None:
        """Say an error with its traceback."""
        say(self.text("".join(traceback.format_exception(error)).rstrip()))

    def install(self) -> None:
        """Have the interpreter say so whatever nobody has caught; for good, as the last of it ends the process."""

        def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self.say_error(error)

        def in_thread(given: threading.ExceptHookArgs) -> None:
            if given.exc_value is not None and not isinstance(given.exc_value, SystemExit):
                self.say_error(given.exc_value)

        def unraisable(given: "sys.UnraisableHookArgs") -> None:
            if given.exc_value is not None:
                self.say_error(given.exc_value)

        sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable
