"""A local agent as a real process, driven from outside: started, read, signalled, ended."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kepm_plugin.devagent.control_client import ControlClient

PATIENCE = 20.0
"""Seconds that a test waits for what must come at once on a quiet machine."""


class AgentProcess:
    """One `python -m kepm_plugin.devagent`, and everything that it has printed."""

    def __init__(
        self,
        root: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        measured: bool = True,
        module: str = "kepm_plugin.devagent",
    ) -> None:
        self.root = root
        # Coverage writes its file from inside the very exit whose time may be what is tested.
        inherited = {name: value for name, value in os.environ.items() if measured or "COVERAGE" not in name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--root", str(root), "--no-color", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=inherited | (env or {}),
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="agent output")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def control(self) -> ControlClient:
        return ControlClient.find(self.root)

    def mark(self) -> int:
        """Return a place in the output, for `until`."""
        with self._changed:
            return len(self._lines)

    def lines(self, pattern: str, *, after: int = 0) -> list[str]:
        """Return the lines so far that hold a pattern."""
        with self._changed:
            return [line for line in self._lines[after:] if re.search(pattern, line)]

    def until(self, pattern: str, *, after: int = 0, timeout: float = PATIENCE) -> re.Match[str]:
        """Wait for a line that holds a pattern."""
        hit = self.seen(pattern, after=after, timeout=timeout)
        assert hit, f"no line {pattern!r} within {timeout} s:\n" + "\n".join(self._lines[-40:])
        return hit

    def seen(self, pattern: str, *, after: int = 0, timeout: float = PATIENCE) -> re.Match[str] | None:
        """Wait for a line that holds a pattern; None where there is none in time."""
        looked = after

        def found() -> re.Match[str] | None:
            nonlocal looked
            lines, looked = self._lines[looked:], len(self._lines)
            return next((hit for line in lines if (hit := re.search(pattern, line))), None)

        with self._changed:
            return self._changed.wait_for(found, timeout)

    def ready(self) -> "AgentProcess":
        """Wait until the agent listens."""
        self.until(r"^agent\s+ready:")
        return self

    def plugin_process(self, plugin: str) -> psutil.Process:
        """Return the process that the agent launched for a plugin."""
        return psutil.Process(self.control.plugins()[plugin]["pid"])

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the agent and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process.wait(PATIENCE)

    def joined(self) -> None:
        """Wait for the end of the output: nothing that the agent started holds it any more."""
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "something that the agent started is still alive"


@contextmanager
def agent_process(
    root: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    measured: bool = True,
    module: str = "kepm_plugin.devagent",
) -> Generator[AgentProcess]:
    """A local agent that is ready, and ended at the end."""
    agent = AgentProcess(root, *arguments, env=env, measured=measured, module=module)
    try:
        yield agent.ready()
    finally:
        agent.send_signal(signal.SIGCONT)
        agent.end()
        agent.joined()
