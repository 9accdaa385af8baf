"""A plugin whose handlers block the event loop, each in another way, for as long as they are told."""

import argparse
import os
import re
import sys
import time
from pathlib import Path

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.runtime import RunOptions, run


class Staller(Plugin):
    """Blocks."""

    id = "Staller"
    version = "1.0.0"
    # Where it is to be quiet, nothing is sent but what keeps the connection alive.
    echo = "STALLER_QUIET" not in os.environ
    heartbeat = 30.0 if echo else None


def say(text: str) -> None:
    """Print a line that the agent shows at once."""
    print(f"noted: {text}", flush=True)


def length_for(seconds: float) -> int:
    """Return for which length of text a match takes about so long; it grows with the third power."""
    length, took = 200, 0.0
    while took < 0.1:
        length, began = length * 2, time.monotonic()
        match(length)
        took = time.monotonic() - began
    return int(length * (seconds / took) ** (1 / 3))


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
        until = time.monotonic() + message.payload["seconds"]
        say("blocks")
        while True:
            if time.monotonic() > until:
                break
        say("goes on")
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
