"""A plugin whose handlers block the event loop, each in another way, for as long as they are told."""

import argparse
import os
import re
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

import anyio

from kepm_plugin import Handler, Message, Plugin, background
from kepm_plugin.runtime import RunOptions, run


class Staller(Plugin):
    """Blocks."""

    id = "Staller"
    version = "1.0.0"
    # Where it is to be quiet, nothing is sent but what keeps the connection alive.
    echo = "STALLER_QUIET" not in os.environ
    heartbeat = 30.0 if echo else None

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Have a place for what is to be done later."""
        self.send, self._receive = anyio.create_memory_object_stream[tuple[float, float]](1)
        with self.send, self._receive:
            yield

    @background()
    async def later(self) -> None:
        """Block without having been sent anything just before."""
        async for wait, seconds in self._receive:
            await anyio.sleep(wait)
            spin(seconds)


def spin(seconds: float) -> None:
    """Block in Python."""
    until = time.monotonic() + seconds
    say("blocks")
    while True:
        if time.monotonic() > until:
            break
    say("goes on")


def say(text: str) -> None:
    """Print a line that the agent shows at once."""
    print(f"noted: {text}", flush=True)


@lru_cache
def length_for(seconds: float) -> int:
    """Return for which length of text a match takes about so long; it grows with the third power."""
    length, took = 200, 0.0
    while took < 0.1:
        length, began = length * 2, time.thread_time()  # Others may have the processor too.
        match(length)
        took = time.thread_time() - began
    return int(length * (1.1 * seconds / took) ** (1 / 3))


def match(length: int) -> object:
    """Search in C for what is not there, holding the interpreter all the while."""
    return re.match(r"a*a*a*b", "a" * length)


@Staller.command("echo")
class Echo(Handler[Staller]):
    """Answers at once."""

    async def handle(self, message: Message[dict[str, object]]) -> dict[str, object]:
        return {"pid": os.getpid(), **message.payload}


@Staller.command("block/loop")
class Spin(Handler[Staller]):
    """Blocks in Python."""

    async def handle(self, message: Message[dict[str, float]]) -> float:
        spin(message.payload["seconds"])
        return message.payload["seconds"]


@Staller.command("block/later")
class SpinLater(Handler[Staller]):
    """Has a background method block."""

    async def handle(self, message: Message[dict[str, float]]) -> float:
        self.plugin.send.send_nowait((message.payload["wait"], message.payload["seconds"]))
        return message.payload["seconds"]


@Staller.command("calibrate")
class Calibrate(Handler[Staller]):
    """Finds out what the next one needs."""

    def handle(self, message: Message[dict[str, float]]) -> int:
        return length_for(message.payload["seconds"])


@Staller.command("block/held")
class Hold(Handler[Staller]):
    """Blocks in C, without letting go of the interpreter."""

    async def handle(self, message: Message[dict[str, int]]) -> float:
        say("blocks")
        began = time.monotonic()
        match(message.payload["length"])
        took = time.monotonic() - began
        say("goes on")
        return took


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keeper-api-base")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    return run(
        Staller, RunOptions(api_base=given.keeper_api_base, data_dir=given.work / "data", lock_dir=given.work / "lock")
    )


if __name__ == "__main__":
    sys.exit(main())
