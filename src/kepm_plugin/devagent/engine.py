"""The engine as a process: started, found ready, started again when it dies, gone with the agent."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import psutil
from anyio.abc import TaskStatus

from kepm_plugin.devagent.engines import Recipe, Start
from kepm_plugin.devagent.guarding import Guard
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import AgentError

READY_WITHIN: Final = 10.0
STOP_WITHIN: Final = 3.0
FIRST_TRIES: Final = 3
"""How often the engine may fail to come up at first: the free port that was found for it may be taken meanwhile."""

LONGEST_PAUSE: Final = 2.0


def pauses() -> Iterator[float]:
    """Seconds to wait before each further start of an engine that does not come up."""
    pause = 0.05
    while True:
        yield pause
        pause = min(pause * 2, LONGEST_PAUSE)


class Engine:
    """A running engine, or one that is about to come back."""

    def __init__(self, recipe: Recipe, folder: Path, guard: Guard, terminal: Terminal) -> None:
        self._recipe, self._folder, self._guard, self._terminal = recipe, folder, guard, terminal
        self._start: Start | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._up = asyncio.Event()
        self._pause_once = 0.0
        self.starts = 0

    @property
    def name(self) -> str:
        """`mosquitto` or `nats`."""
        return self._recipe.name

    @property
    def up(self) -> bool:
        """Whether the engine accepts connections."""
        return self._up.is_set()

    @property
    def pid(self) -> int | None:
        """The engine's process id, None while it is down."""
        return self._process.pid if self._process is not None and self.up else None

    @property
    def credential(self) -> tuple[str, str] | None:
        """User and password that CONNECT must carry."""
        return self._start.credential if self._start is not None else None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the engine.

        Raises:
            OSError: It is down.
        """
        if self._start is None or not self.up:
            raise ConnectionRefusedError("the engine is down")
        return await self._start.connect()

    async def wait_up(self) -> None:
        """Return when the engine accepts connections."""
        await self._up.wait()

    async def kill(self, *, pause: float = 0.0) -> None:
        """Kill the engine (SIGKILL) and return when it is gone; it comes back by itself, after `pause` seconds."""
        await self._up.wait()
        process = self._process
        if process is None:
            return
        self._pause_once = pause
        self._up.clear()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def suspend(self) -> None:
        """Stop the process where it stands (SIGSTOP): connections stay, and nothing is answered."""
        if self._process is not None:
            with suppress(psutil.Error):
                psutil.Process(self._process.pid).suspend()
            if sys.platform == "linux":
                # The signal stops one thread after the other: until the last, something is answered still.
                with suppress(ChildProcessError):
                    os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let the process go on (SIGCONT)."""
        if self._process is not None:
            with suppress(psutil.Error):
                psutil.Process(self._process.pid).resume()

    async def supervise(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run the engine for ever; `started` when it accepts for the first time.

        Raises:
            AgentError: It does not come up at first.
        """
        waits, failures = pauses(), 0
        while True:
            came_up = await self._run(task_status)
            if came_up:
                waits, failures = pauses(), 0
            else:
                failures += 1
            if not self.starts and failures == FIRST_TRIES:
                raise AgentError(f"{self.name} did not start: {self._last_words()}")
            pause = self._pause_once or (0.0 if came_up else next(waits))
            self._pause_once = 0.0
            self._terminal.warn(f"{self.name} ended; clients are dropped, it is started again")
            await anyio.sleep(pause)

    async def _run(self, task_status: TaskStatus[None]) -> bool:
        """Run one process of the engine to its end; tell whether it ever accepted."""
        start = self._recipe.prepare(self._folder)
        with (self._folder / "engine.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *start.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # a terminal's Ctrl-C reaches the agent alone
            )
        self._guard.started("engine", process.pid)
        try:
            if not await self._accepts(process, start):
                return False
            self._start, self._process = start, process
            self.starts += 1
            self._up.set()
            if self.starts == 1:
                task_status.started()
            else:
                self._terminal.agent(f"{self.name} accepts again")
            await process.wait()
            return True
        finally:
            self._up.clear()
            await _end(process)
            self._guard.ended(process.pid)

    async def _accepts(self, process: asyncio.subprocess.Process, start: Start) -> bool:
        """Tell whether the engine took a connection before it ended."""
        with anyio.move_on_after(READY_WITHIN):
            while process.returncode is None:  # there is no event for "listens"
                try:
                    _, writer = await start.connect()
                except OSError:
                    await anyio.sleep(0.01)
                else:
                    writer.transport.abort()
                    return True
        return False

    def _last_words(self) -> str:
        with suppress(OSError):
            text = (self._folder / "engine.log").read_text(encoding="utf-8", errors="replace").strip()
            return " | ".join(text.splitlines()[-3:]) or "it ended without a word"
        return "it left no log"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process, insisting after a while."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
        with anyio.move_on_after(STOP_WITHIN, shield=True):
            await process.wait()
            return
        process.kill()
        with anyio.move_on_after(STOP_WITHIN, shield=True):
            await process.wait()


@asynccontextmanager
async def running_engine(recipe: Recipe, guard: Guard, terminal: Terminal) -> AsyncGenerator[Engine]:
    """Run an engine in a private folder for the time of the block.

    Raises:
        AgentError: It does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="kepm-engine-", ignore_cleanup_errors=True) as name:  # mode 0700
        folder = Path(name)
        guard.folder(folder)
        engine = Engine(recipe, folder, guard, terminal)
        async with anyio.create_task_group() as tasks:
            await tasks.start(engine.supervise, name="engine.supervise")
            yield engine
            tasks.cancel_scope.cancel()
        guard.folder_gone(folder)
