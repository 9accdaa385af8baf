"""The second line: code in C that holds the interpreter, where no thread of Python can look or write."""

import faulthandler
import math
import os
import stat
import sys
import time
from contextlib import suppress
from io import UnsupportedOperation


class SecondLine:
    """Has `faulthandler` write all stacks to standard error unless it is put off again in time.

    It has one timer in a process; who also calls `dump_traceback_later` shares it with us. Whoever touches the timer
    waits, holding the interpreter, for a thread that is just writing: a pipe that nobody reads would stop the process
    for ever. So it is used only where a write cannot hang: a file, a terminal, and on Linux a pipe.
    """

    def __init__(self, seconds: float) -> None:
        self.since = -math.inf
        """When it was put off last."""
        self.seconds = seconds
        self._ours, self._descriptor = _unblocking()

    def put_off(self) -> None:
        """Give those who watch `seconds` from now on; from any thread."""
        descriptor = self._descriptor
        if descriptor is not None:
            self.since = time.monotonic()
            with suppress(RuntimeError):  # no further thread can be started
                faulthandler.dump_traceback_later(self.seconds, file=descriptor)

    def call_off(self) -> None:
        """Have nothing written until the next `put_off`."""
        if self._descriptor is not None:
            faulthandler.cancel_dump_traceback_later()
            self.since = -math.inf

    def close(self) -> None:
        """Call it off for good."""
        self.call_off()
        descriptor, self._descriptor = self._descriptor, None
        if self._ours and descriptor is not None:
            os.close(descriptor)


def _unblocking() -> tuple[bool, int | None]:
    """Return a descriptor of standard error on which a write cannot hang, and whether it is ours to close."""
    # None in a program without a console, or what has no descriptor.
    with suppress(AttributeError, UnsupportedOperation, ValueError, OSError):
        descriptor = sys.stderr.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):  # Opened anew it would have a position of its own.
            return False, descriptor
        with suppress(OSError, AttributeError):
            # On Linux this is a new description of the same pipe: that it never blocks is known to us alone.
            return True, os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if stat.S_ISCHR(mode):
            return False, descriptor
    return False, None
