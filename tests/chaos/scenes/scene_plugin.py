"""The plugin of the scenes: a handler of each kind, each notes on the board what it has handled."""

import time
from typing import NotRequired, TypedDict

import anyio

from kepm_plugin import Handler, Message, Plugin, Publisher, Settings
from tests.chaos.scenes.board import Board


class Numbered(TypedDict):
    """A message of the source: its number, and for how many seconds its handler works."""

    number: int
    pause: float
    padding: NotRequired[str]


class Scene(Plugin):
    """Is what happens to it."""

    id = "Scene"
    version = "1.0.0"
    settings: Settings
    clean_session = False
    heartbeat = 1.0
    drain = 1.0
    relayed = Publisher[int]("Relayed", qos=1)
    board: Board


@Scene.topic("Events/plain")
class Plain(Handler[Scene]):
    """Never waits."""

    async def handle(self, message: Message[Numbered]) -> None:
        self.plugin.board.handled(message.payload["number"])


@Scene.topic("Events/waiting")
class Waiting(Handler[Scene]):
    """Waits, one message at a time."""

    async def handle(self, message: Message[Numbered]) -> None:
        await anyio.sleep(message.payload["pause"])
        self.plugin.board.handled(message.payload["number"])


@Scene.topic("Events/keyed/{key}")
class Keyed(Handler[Scene]):
    """Works in threads, in order inside a key."""

    concurrency = 4
    order_by = "key"

    def handle(self, message: Message[Numbered]) -> None:
        time.sleep(message.payload["pause"])
        self.plugin.board.handled(message.payload["number"])


@Scene.topic("Events/relay")
class Relay(Handler[Scene]):
    """Publishes what it is given."""

    async def handle(self, message: Message[Numbered]) -> None:
        await anyio.sleep(message.payload["pause"])
        await self.plugin.relayed.publish(message.payload["number"])
        self.plugin.board.handled(message.payload["number"])


@Scene.topic("Events/stuck")
class Stuck(Handler[Scene]):
    """Never comes to an end."""

    concurrency = 10

    async def handle(self, message: Message[Numbered]) -> None:
        self.plugin.board.begun()
        await anyio.sleep_forever()


@Scene.command("work")
class Work(Handler[Scene]):
    """Answers."""

    concurrency = 2

    async def handle(self, message: Message[Numbered]) -> dict[str, int]:
        await anyio.sleep(message.payload["pause"])
        self.plugin.board.handled(message.payload["number"])
        return {"number": message.payload["number"]}
