"""Two plugins for an outage: one publishes numbered events, kept on disk; the other notes which arrive."""

import argparse
import os
import sys
from pathlib import Path

import anyio

from kepm_plugin import Handler, Message, Plugin, Publisher, background
from kepm_plugin.runtime import RunOptions, run

WORK = Path(os.environ.get("OUTAGE_WORK", "."))
EVENTS = int(os.environ.get("OUTAGE_EVENTS", "0"))
SECONDS = float(os.environ.get("OUTAGE_SECONDS", "0"))
"""In which the events are published, the pauses between them taken together."""


class Book:
    """A file of numbers that each process goes on with; one write for each, so that a kill tears none."""

    def __init__(self, name: str) -> None:
        self.path = WORK / name
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, number: int) -> None:
        """Append a number."""
        os.write(self._descriptor, b"%d\n" % number)

    def numbers(self) -> list[int]:
        """Return all numbers, those of earlier processes included."""
        return [int(line) for line in self.path.read_text().split()]


class Source(Plugin):
    """Publishes the events, and notes each when `publish` has returned. A later process goes on where the last was."""

    id = "Source"
    outbox = "disk"
    event = Publisher[int]("Events")

    def __init__(self) -> None:
        self.published = Book("published")
        self.go = anyio.Event()

    @background()
    async def publish_all(self) -> None:
        first = len(self.published.numbers())
        if not first:
            await self.go.wait()
        for number in range(first, EVENTS):
            await self.event.publish(number)
            self.published.note(number)
            if number == EVENTS // 2:
                print("half of the events are published", flush=True)
            await anyio.sleep(SECONDS / EVENTS)
        print("all events are published", flush=True)


@Source.command("go")
class Go(Handler[Source]):
    """Begins."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        self.plugin.go.set()


class Sink(Plugin):
    """Notes what arrives. The broker keeps for it what comes while it is away."""

    id = "Sink"
    clean_session = False

    def __init__(self) -> None:
        self.arrived = Book("arrived")
        self.seen = set(self.arrived.numbers())


@Sink.topic("/Source/Events")
class Arrival(Handler[Sink]):
    """Takes an event."""

    async def handle(self, message: Message[int]) -> None:
        sink, before = self.plugin, len(self.plugin.seen)
        sink.arrived.note(message.payload)
        sink.seen.add(message.payload)
        if len(sink.seen) == before:
            return
        if len(sink.seen) == EVENTS // 4:
            print("a quarter of the events has arrived", flush=True)
        if len(sink.seen) == EVENTS:
            print("all events have arrived", flush=True)


def main() -> int:
    """Run one of the plugins."""
    parser = argparse.ArgumentParser()
    parser.add_argument("plugin", choices=["Source", "Sink"])
    parser.add_argument("--keeper-api-base")
    given = parser.parse_args()
    kind = Source if given.plugin == "Source" else Sink
    return run(kind, RunOptions(api_base=given.keeper_api_base, data_dir=WORK / "data", lock_dir=WORK / "lock"))


if __name__ == "__main__":
    sys.exit(main())
