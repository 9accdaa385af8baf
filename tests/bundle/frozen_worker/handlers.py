"""Handlers in a second module: they tell about the process that they run in."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anyio

from kepm_plugin import Handler, Message, program_environment

from .worker import FrozenWorker


@FrozenWorker.command("process")
class Process(Handler[FrozenWorker]):
    """Describes this process."""

    async def handle(self, message: Message[dict[str, list[str]]]) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "program": sys.executable,
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
            "found": [name for name in message.payload.get("modules", []) if find_spec(name) is not None],
        }


@FrozenWorker.command("program")
class Program(Handler[FrozenWorker]):
    """Starts a program of the system, and returns the environment that it got."""

    async def handle(self, message: Message[dict[str, object]]) -> dict[str, str]:
        done = await anyio.run_process(["/usr/bin/env", "-0"], env=program_environment())
        return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)


@FrozenWorker.command("worker")
class Worker(Handler[FrozenWorker]):
    """Has a process of `multiprocessing` do something."""

    def handle(self, message: Message[dict[str, object]]) -> int:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(os.getppid).result(20)
