"""The measured processes, as the harness has them: started, listened to, stopped and let go on, ended."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

HERE: Final = Path(__file__).parents[1]
"""Where measured processes begin, so that they are modules of `benchmarks`: gmqtt installs a package `tests`."""
PATIENCE: Final = 120.0
"""Seconds for whatever a process is waited for."""


class BenchmarkError(Exception):
    """A process did not do what it was to do; with the last that it has said."""


class Process:
    """One process, and what it tells."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: Path) -> None:
        self._process, self._errors = process, errors
        self._told: Queue[dict[str, Any] | None] = Queue()
        self._reader = threading.Thread(target=self._read, name="benchmark output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))
        self._told.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    def told(self, event: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the next thing that it tells, which has to be `event`.

        Raises:
            BenchmarkError: It ended, told something else, or nothing in time.
        """
        found = self.heard(timeout)
        if found is None or found.pop("event") != event:
            raise self._failed(f"did not tell {event!r} but {found}")
        return found

    def heard(self, timeout: float) -> dict[str, Any] | None:
        """Return the next thing that it tells, None where it tells nothing in time.

        Raises:
            BenchmarkError: It has ended.
        """
        try:
            found = self._told.get(timeout=timeout)
        except Empty:
            return None
        if found is None:
            raise self._failed("has ended")
        return found

    def _failed(self, what: str) -> BenchmarkError:
        last = self._errors.read_text("utf-8", "replace").splitlines()[-15:]
        return BenchmarkError("\n".join([f"{self._process.args!r} {what}", *last]))

    @contextmanager
    def halted(self) -> Generator[None]:
        """Stop the process for the time of the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        """Wait until it has ended by itself."""
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def end(self) -> None:
        """End it, the hard way: nothing of it is needed any more."""
        self._process.kill()
        self.finish()


def _changes_what_is_measured(variable: str) -> bool:
    """Tell whether a variable slows processes down: without byte code, what is installed to be edited starts slowly."""
    return "COVERAGE" in variable or variable == "PYTHONDONTWRITEBYTECODE"


@contextmanager
def measured(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Generator[Process]:
    """Run a process, for the time of the block."""
    errors = folder / "errors"
    with errors.open("wb") as file:
        inherited = {name: value for name, value in os.environ.items() if not _changes_what_is_measured(name)}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            env={**inherited, **environment},
            cwd=HERE,
        )
        one = Process(process, errors)
        try:
            yield one
        finally:
            one.end()
            assert process.stdout is not None
            process.stdout.close()
