"""A plugin in memory that is given bursts: what the framework does with each message, and with what is published."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec
import structlog

from kepm_plugin import Handler, Message, Plugin, Publisher
from kepm_plugin.contract import LOGGER_TOPIC
from kepm_plugin.message import Publication
from kepm_plugin.stall import stall_guard
from kepm_plugin.testing import Hosted, hosted
from tests.budget.counter import Steps, counted, standing_still

PAYLOAD: Final = b'{"number": 4711, "host": "web-01.example", "arguments": ["restart", "nginx"], "seconds": 0.25}'
FOREVER: Final = 10_000.0
"""Seconds that a step may take: the guard is on, as in a plugin's process, and its thread sleeps."""
SETTLE: Final = 30
"""Turns of the event loop after the last message, for what is left to be done."""
PATIENCE: Final = 60.0


class Event(msgspec.Struct):
    """What messages hold."""

    number: int
    host: str
    arguments: list[str]
    seconds: float


EVENT: Final = msgspec.json.decode(PAYLOAD, type=Event)


async def turns(count: int = SETTLE) -> None:
    """Let the event loop do what there is to do."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


class Awaited:
    """Tells when so many have come."""

    def __init__(self) -> None:
        self._left, self._come = 0, anyio.Event()
        self.gate: anyio.Event | None = None
        """What a handler waits for, if it is to wait."""

    def expect(self, count: int) -> None:
        """Begin to count."""
        self._left, self._come = count, anyio.Event()

    def one(self) -> None:
        """Count one."""
        self._left -= 1
        if self._left == 0:
            self._come.set()

    async def all(self) -> None:
        """Return when all have come, and what is left to be done after the last one has been done."""
        await self._come.wait()
        await turns()


def measured(handlers: int, *, journal: bool, awaited: Awaited) -> type[Plugin]:
    """Return a plugin with so many handlers, each with a topic of its own."""

    class Measured(Plugin):
        """Is measured."""

        id = "Measured"
        findings = Publisher[Event]("Findings/{severity}")

    Measured.journal = journal
    for number in range(handlers):

        @Measured.topic(f"Events/t{number:04}/{{host}}")
        class Each(Handler[Measured]):
            async def handle(self, message: Message[Event]) -> None:
                if awaited.gate is not None:
                    await awaited.gate.wait()
                awaited.one()

    return Measured


class Bursts:
    """A plugin that runs, and ways to keep it busy."""

    def __init__(self, host: Hosted[Any], awaited: Awaited) -> None:
        self._host, self._awaited = host, awaited

    async def receive(self, count: int, *, handlers: int = 1, qos: int = 1, held: bool = False) -> Steps:
        """Have it receive so many messages at once, in turn for each of some handlers.

        With `held` the first one is not done before the last one has come, so that all wait.
        """
        self._awaited.expect(count)
        self._awaited.gate = anyio.Event() if held else None
        for number in range(count):
            topic = f"Measured/Events/t{number % handlers:04}/web-01"
            self._host.broker.route(Publication(topic, PAYLOAD, qos))
        with counted() as steps:
            if self._awaited.gate is not None:
                await turns(count)
                self._awaited.gate.set()
            await self._awaited.all()
        return steps

    async def publish(self, count: int) -> Steps:
        """Have it publish, and wait for the broker to have the last one."""
        findings, event = self._host.plugin.findings, EVENT
        self._awaited.expect(1)
        with counted() as steps:
            for _ in range(count - 1):
                await findings.publish(event, severity="high")
            await findings.publish(event, severity="high", wait="acknowledged")
            self._awaited.one()
            await self._awaited.all()
        return steps

    async def publish_soon(self, count: int) -> Steps:
        """The same, without waiting, as any thread may."""
        findings, event = self._host.plugin.findings, EVENT
        self._awaited.expect(count)
        with counted() as steps:
            for _ in range(count):
                findings.publish_soon(event, severity="low")
            await self._awaited.all()
        return steps

    async def log(self, count: int, *, level: str = "info") -> Steps:
        """Have it log so many events; what sending them takes is not counted."""
        logger = structlog.get_logger("measured").bind(job="nightly")
        write = getattr(logger, level)
        self._awaited.expect(count)
        with counted() as steps:
            for number in range(count):
                write("scan.finished", host="web-01.example", user="ada", files=number, seconds=0.25)
        if level != "debug":
            await self._awaited.all()
        return steps

    async def send_records(self, count: int) -> Steps:
        """Have it send so many records that were logged."""
        logger = structlog.get_logger("measured")
        self._awaited.expect(count)
        for number in range(count):
            logger.info("scan.finished", host="web-01.example", user="ada", files=number, seconds=0.25)
        with counted() as steps:
            await self._awaited.all()
        return steps


@asynccontextmanager
async def in_memory(*, handlers: int = 1, journal: bool = True, kept: int = 0) -> AsyncGenerator[Bursts]:
    """Run a plugin that is measured; `kept`, where it is given, bounds what waits for a handler in memory."""
    awaited = Awaited()

    def saw(publication: Publication) -> None:
        if publication.topic in ("Measured/Findings/low", LOGGER_TOPIC):
            awaited.one()

    with anyio.fail_after(PATIENCE), stall_guard(print, FOREVER):
        async with hosted(measured(handlers, journal=journal, awaited=awaited)) as host:
            host.broker.watch(saw)
            if kept:
                await host.change_setting("kepm.handler.waiting", kept)
            with standing_still():
                yield Bursts(host, awaited)


Burst = Callable[[int], Awaitable[Steps]]
