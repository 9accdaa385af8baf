"""The second line: code in C that holds the interpreter, where no thread of Python can look or write."""

import faulthandler
import math
import select
import stat
import sys
import time
from contextlib import suppress
from io import UnsupportedOperation
from os import fstat


class SecondLine:
    """Has `faulthandler` write all stacks to standard error unless it is put off again in time.

    Its one timer in a process is used: who also calls `dump_traceback_later` shares it with us. Its thread may hang on
    a pipe that nobody reads, and whoever touched the timer then would hang too, holding the interpreter. So it is
    left alone where the pipe takes nothing; on Windows, where that cannot be asked, where standard error is a pipe.
    """

    def __init__(self, seconds: float) -> None:
        self.since = -math.inf
        """When it was put off last."""
        self._seconds = seconds
        self._descriptor, self._never_blocks = -1, False
        # None in a program without a console, or what has no descriptor.
        with suppress(AttributeError, UnsupportedOperation, ValueError, OSError):
            self._descriptor = sys.stderr.fileno()
            mode = fstat(self._descriptor).st_mode
            self._never_blocks = stat.S_ISREG(mode) or stat.S_ISCHR(mode)

    def put_off(self) -> None:
        """Give those who watch `seconds` from now on; from any thread."""
        if not self._may_be_touched():
            return
        if not self._takes():
            faulthandler.cancel_dump_traceback_later()
            return
        self.since = time.monotonic()
        with suppress(RuntimeError):  # no further thread can be started
            faulthandler.dump_traceback_later(self._seconds, file=self._descriptor)

    def call_off(self) -> None:
        """Have nothing written until the next `put_off`."""
        if self._may_be_touched():
            faulthandler.cancel_dump_traceback_later()
            self.since = -math.inf

    def _may_be_touched(self) -> bool:
        """Tell whether the timer's thread cannot be in the middle of writing to a pipe that is full."""
        return self._descriptor >= 0 and (time.monotonic() < self.since + self._seconds or self._takes())

    def _takes(self) -> bool:
        if self._never_blocks:
            return True
        try:
            return bool(select.select([], [self._descriptor], [], 0)[1])
        except (OSError, ValueError):  # closed, or no such thing can be asked
            return False
