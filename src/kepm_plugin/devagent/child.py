"""One launched process: its start, its output, its end."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import psutil

from kepm_plugin.devagent.guard import families

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


class _Output(asyncio.SubprocessProtocol):
    """Cuts what a process writes into lines; knows its end apart from the end of its output."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.exited, self.silent = asyncio.Event(), asyncio.Event()
        self._show = show
        self._rest = b""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Show the lines that are complete, and what is too long to wait for."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._show(line.decode("utf-8", "replace").rstrip("\r"))
        if len(self._rest) > _LINE:
            self.flush()

    def flush(self) -> None:
        """Show what came without an end of line."""
        if self._rest:
            self._show(self._rest.decode("utf-8", "replace"))
            self._rest = b""

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Nothing more comes from this process, nor from what it left behind."""
        self.silent.set()

    def process_exited(self) -> None:
        """The process itself has ended."""
        self.exited.set()


class Child:
    """A process that was launched.

    Attributes:
        system: For comparing it with what has its number later.
    """

    def __init__(self, transport: asyncio.SubprocessTransport, output: _Output, system: psutil.Process | None) -> None:
        self._transport, self._output = transport, output
        self.pid: int = transport.get_pid()
        self.system = system

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._transport.get_returncode()

    async def attend(self) -> int:
        """Return the exit code when the process has ended and its last output was shown."""
        try:
            await self._output.exited.wait()
            with anyio.move_on_after(OUTPUT_AFTER_EXIT):
                await self._output.silent.wait()
            self._output.flush()
        finally:
            self._transport.close()
        return self.exit_code or 0

    async def stop(self, grace: float) -> bool:
        """Ask the process to end, insist after `grace` seconds, and end what it left behind; tell whether it obeyed."""
        obeyed = True
        if self.exit_code is None:
            self._ask()
            with anyio.move_on_after(grace) as patience:
                await self._output.exited.wait()
            obeyed = not patience.cancelled_caught
        if not obeyed:
            with suppress(ProcessLookupError):
                self._transport.kill()
            with anyio.move_on_after(KILL_WITHIN):
                await self._output.exited.wait()
        if self.system is not None:
            for left in await anyio.to_thread.run_sync(families, [self.system]):
                with suppress(psutil.Error):
                    left.kill()
        return obeyed

    def _ask(self) -> None:
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                import signal

                self._transport.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                self._transport.terminate()


async def spawn(program: Path, arguments: Sequence[str], folder: Path, show: Callable[[str], None]) -> Child:
    """Start a process whose lines of output go to `show`.

    It has a session of its own, so that a terminal's Ctrl-C reaches the agent alone.

    Raises:
        OSError: It cannot be started.
    """
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        flags = 0
    # Not asyncio.create_subprocess_exec: its wait() also waits for who holds the pipe, a process left behind included.
    transport, output = await asyncio.get_running_loop().subprocess_exec(
        lambda: _Output(show),
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
        system = psutil.Process(transport.get_pid())
    return Child(transport, output, system)
