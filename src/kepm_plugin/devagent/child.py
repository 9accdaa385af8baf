"""One launched process: its start, its output, its end."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import psutil

from kepm_plugin.devagent.guard import families
from kepm_plugin.devagent.terminal import Terminal

KILL_WITHIN: Final = 5.0
OUTPUT_AFTER_EXIT: Final = 0.5
"""Seconds for what the process wrote last; a process that it left behind may hold the pipe for ever."""

_LINE: Final = 64 * 1024
_HIDDEN: Final = ("KEPM_", "KEEPER_")


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return a plugin's environment: the agent's own, without anything about KEPM, and nothing added.

    What the agent passes to plugins is not documented, but for two variables that only job tasks get.
    """
    return {name: value for name, value in ours.items() if not name.upper().startswith(_HIDDEN)}


class Child:
    """A process that was launched.

    Attributes:
        system: For comparing it with what has its number later.
    """

    def __init__(self, process: asyncio.subprocess.Process, system: psutil.Process | None) -> None:
        self._process = process
        self.system = system

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._process.returncode

    async def attend(self, plugin_id: str, terminal: Terminal) -> int:
        """Show what the process writes, and return its exit code when it has ended."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._relay, plugin_id, terminal, name=f"output of {plugin_id}")
            await self._process.wait()
            tasks.cancel_scope.deadline = anyio.current_time() + OUTPUT_AFTER_EXIT
        return await self._process.wait()

    async def _relay(self, plugin_id: str, terminal: Terminal) -> None:
        if self._process.stdout is None:
            return
        rest = b""
        with suppress(OSError):
            while data := await self._process.stdout.read(_LINE):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    terminal.line(plugin_id, line.decode("utf-8", "replace").rstrip("\r"))
        if rest:
            terminal.line(plugin_id, rest.decode("utf-8", "replace"))

    async def stop(self, grace: float) -> bool:
        """Ask the process to end, insist after `grace` seconds, and end what it left behind; tell whether it obeyed."""
        obeyed = True
        if self.exit_code is None:
            self._ask()
            with anyio.move_on_after(grace) as patience:
                await self._process.wait()
            obeyed = not patience.cancelled_caught
        if not obeyed:
            with suppress(ProcessLookupError):
                self._process.kill()
            with anyio.move_on_after(KILL_WITHIN):
                await self._process.wait()
        if self.system is not None:
            for left in await anyio.to_thread.run_sync(families, [self.system]):
                with suppress(psutil.Error):
                    left.kill()
        return obeyed

    def _ask(self) -> None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                import signal

                self._process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                self._process.terminate()


async def spawn(program: Path, arguments: Sequence[str], folder: Path) -> Child:
    """Start a process in a session of its own, so that a terminal's Ctrl-C reaches the agent alone.

    Raises:
        OSError: It cannot be started.
    """
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        flags = 0
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(os.environ),
        start_new_session=True,
        creationflags=flags,
    )
    system = None
    with suppress(psutil.Error):
        system = psutil.Process(process.pid)
    return Child(process, system)
