"""Being asked to stop: signals, and the hard exit for code that cannot be stopped."""

import _thread
import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGBREAK")
"""Asked for by name: SIGBREAK exists on Windows alone. How the agent stops a plugin is not documented."""

CUT_OFF: Final = 73
"""Exit code where handlers had to be cut off."""

GRACE: Final = 0.5
"""Seconds after the drain deadline until the process ends, whatever still runs."""


class Stopping:
    """From the first reason to stop on, a thread waits for the deadline: the event loop may be blocked for ever."""

    def __init__(self) -> None:
        self._counting = False
        self._finished = False

    def count_down(self, seconds: float, code: int = CUT_OFF) -> None:
        """Have the process end with `code` a little after so many seconds, unless it has; the first call counts."""
        if not self._counting:
            self._counting = True
            # A bare thread: starting a threading.Thread takes locks, which a signal handler must not wait for.
            _thread.start_new_thread(self._wait, (seconds, code))

    def finish(self) -> None:
        """Say that the process is about to end by itself, with nothing left to wait for."""
        self._finished = True

    def _wait(self, seconds: float, code: int) -> None:
        time.sleep(max(seconds, 0) + GRACE)
        if not self._finished:
            exit_now(f"{seconds:.3g} s were left to end, and have passed; this is where the process was:", code)


def exit_now(reason: str, code: int = CUT_OFF) -> None:
    """End the process from any thread, without waiting for anything."""
    # A handler that spins gives the interpreter away for 5 ms only at a time, and each line written asks for it anew.
    sys.setswitchinterval(1e-6)
    if say(f"kepm-plugin: {reason}"):
        faulthandler.dump_traceback(all_threads=True)
    os._exit(code)


def say(line: str) -> bool:
    """Write a line to standard error; False where nobody reads it, as with an orphan's."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return False
    return sys.stderr is not None


@contextmanager
def stop_on_signals(stopping: Stopping, seconds: Callable[[], float], stop: Callable[[], object]) -> Generator[None]:
    """At the first signal call `stop` on the event loop, which has so many seconds; at the second end at once."""
    loop = asyncio.get_running_loop()
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            exit_now("a second signal came")
        asked = True
        stopping.count_down(seconds())
        loop.call_soon_threadsafe(stop)

    before = {number: signal.signal(number, handle) for name in SIGNALS if (number := getattr(signal, name, None))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def other_threads() -> bool:
    """Tell whether threads are left that would keep the interpreter from ending."""
    return any(
        not thread.daemon and thread is not threading.main_thread() and thread.is_alive()
        for thread in threading.enumerate()
    )
