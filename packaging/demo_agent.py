"""The local agent of the demo as a process, the commands that a user would type, and what is printed of both."""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from kepm_plugin.devagent import ControlClient

PATIENCE = 20.0
"""Seconds until something that must come has failed to come."""


class Failed(Exception):
    """A step did not show what it must."""


def heading(number: int, text: str) -> None:
    """Begin a step."""
    print(f"\n=== {number}. {text}", flush=True)


def show(text: str) -> None:
    """Print what a process said."""
    for line in text.splitlines():
        print(f"    {line}", flush=True)


def check(holds: bool, what: str) -> None:
    """Print what has been shown, or end the demo."""
    if not holds:
        raise Failed(f"not so: {what}")
    print(f"  ok: {what}", flush=True)


def kepm_plugin(*arguments: object) -> str:
    """Run a command of `kepm-plugin` as a user would, and return what it printed."""
    words = [str(word) for word in arguments]
    print(f"  $ kepm-plugin {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "kepm_plugin", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Failed(f"kepm-plugin {words[0]} did not end within {3 * PATIENCE:g} s") from None
    if done.returncode:
        raise Failed(f"kepm-plugin {words[0]} ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Agent:
    """`kepm-plugin dev` as a process, and what it has printed so far."""

    def __init__(self, target: Path, root: Path, broker: str) -> None:
        self.root = root
        command = ["dev", str(target), "--root", str(root), "--broker", broker]
        print(f"  $ kepm-plugin {shlex.join(command)} &", flush=True)
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "kepm_plugin", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Not on the user's list of running agents: a `send` of theirs is for another one.
            env=os.environ | {"PYTHONUTF8": "1", "COLUMNS": "1000", "KEPM_DEV_AGENTS": str(root / ".dev" / "agents")},
        )
        self._reader = threading.Thread(target=self._read, name="agent output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def control(self) -> ControlClient:
        """What else can be asked of the agent."""
        return ControlClient.find(self.root)

    def mark(self) -> int:
        """Return a place in the output, for `until`."""
        with self._changed:
            return len(self._lines)

    def until(self, pattern: str, after: int = 0) -> None:
        """Show the first line from a place on that a pattern is found in; wait for it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((line for line in self._lines[after:] if re.search(pattern, line)), None), PATIENCE
            )
            if found is None:
                last = "\n    ".join(self._lines[-30:])
                raise Failed(f"the agent printed no line like {pattern!r} in {PATIENCE:g} s; its last:\n    {last}")
        show(found)

    def end(self) -> int:
        """Stop the agent, which stops all that it started, and return its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its guard ends the engine and the plugins
            code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def all_gone(self) -> bool:
        """Whether nothing that the agent started holds its output any more."""
        return not self._reader.is_alive()


@contextmanager
def agent_on(target: Path, root: Path, broker: str) -> Generator[Agent]:
    """Run the agent for the time of the block."""
    agent = Agent(target, root, broker)
    try:
        yield agent
    finally:
        agent.end()
