"""The plugin that is killed: a handler of each kind, each notes the messages that it begins and ends."""

import time
from typing import TypedDict

import anyio

from kepm_plugin import Handler, Message, Plugin, Settings
from tests.chaos.ledger import Ledger


class Numbered(TypedDict):
    """A message of the producer: its number, and for how many seconds its handler works."""

    number: int
    pause: float


class Chaos(Plugin):
    """Is killed all the time."""

    id = "Chaos"
    version = "1.0.0"
    settings: Settings
    clean_session = False
    drain = 10.0
    ledger: Ledger
    run = 0

    def begins(self, message: Message[Numbered]) -> None:
        """Note that a handler was called."""
        self.ledger.note("b", self.run, message.payload["number"], message.delivery)

    def ends(self, message: Message[Numbered]) -> None:
        """Note that it came to its end."""
        self.ledger.note("e", self.run, message.payload["number"], message.delivery)


@Chaos.topic("Events/plain")
class Plain(Handler[Chaos]):
    """Never waits."""

    async def handle(self, message: Message[Numbered]) -> None:
        self.plugin.begins(message)
        self.plugin.ends(message)


@Chaos.topic("Events/waiting")
class Waiting(Handler[Chaos]):
    """Waits, several at a time."""

    concurrency = 4

    async def handle(self, message: Message[Numbered]) -> None:
        self.plugin.begins(message)
        await anyio.sleep(message.payload["pause"])
        self.plugin.ends(message)


@Chaos.topic("Events/keyed/{key}")
class Keyed(Handler[Chaos]):
    """Waits, in order inside a key."""

    concurrency = 4
    order_by = "key"

    async def handle(self, message: Message[Numbered]) -> None:
        self.plugin.begins(message)
        await anyio.sleep(message.payload["pause"])
        self.plugin.ends(message)


@Chaos.topic("Events/thread")
class InThread(Handler[Chaos]):
    """Works in a thread."""

    def handle(self, message: Message[Numbered]) -> None:
        self.plugin.begins(message)
        time.sleep(message.payload["pause"])
        self.plugin.ends(message)


@Chaos.command("work")
class Work(Handler[Chaos]):
    """Answers."""

    concurrency = 2

    async def handle(self, message: Message[Numbered]) -> dict[str, int]:
        self.plugin.begins(message)
        await anyio.sleep(message.payload["pause"])
        self.plugin.ends(message)
        return {"number": message.payload["number"]}


HANDLERS = (Plain, Waiting, Keyed, InThread, Work)
