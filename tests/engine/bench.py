"""A dispatcher under test, and small plugins for it."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.contract import ASSUMED
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.errors import StoreError
from kepm_plugin.message import Publication, Received
from kepm_plugin.store import Store

JSON = dict[str, object]

AT = 4e9
"""When messages were received, in seconds since the epoch: nothing is too old in these tests unless it says so."""

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
"""For handlers in threads, which no mock clock waits for."""


def fresh(**attributes: Any) -> type[Plugin]:
    """Return a plugin without handlers."""
    return type("P", (Plugin,), {"id": "P", **attributes})


class Bench:
    """A dispatcher between a test that plays the session and a test that plays the outbox."""

    def __init__(self, kind: type[Plugin], store: Store) -> None:
        self.store = store
        self.answers: list[Publication] = []
        self.link_up = True
        """Whether the broker acknowledges what is published."""
        self.acknowledged: list[int] = []
        self.troubles: list[tuple[str, str | None]] = []
        self._mids = count(1)
        self._changed = anyio.Event()
        self.direct: list[bytes] = []
        self.paused: list[bool] = []
        self.dispatcher = Dispatcher(
            kind(),
            kind.declarations().handlers,
            {"X/Responses/y": lambda received: self.direct.append(received.payload)},
            store,
            self._answer,
            ASSUMED,
            self._trouble,
            lambda text, limit: text[:limit].replace("hunter2", "***"),
            send=self._send,
            pause=self.paused.append,
        )

    def _answer(
        self, publication: Publication, kept: int | None, acknowledged: Callable[[], None] | None = None
    ) -> None:
        self.answers.append(publication)
        if acknowledged is not None and self.link_up:
            acknowledged()
        self.changed()

    async def _send(self, publication: Publication) -> None:
        self._answer(publication, None)

    def _trouble(self, source: str, reason: str | None) -> None:
        self.troubles.append((source, reason))
        self.changed()

    def acknowledge(self, mids: Sequence[int]) -> None:
        self.acknowledged += mids
        self.changed()

    def changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def receive(self, *messages: Received) -> None:
        self.dispatcher.receive(messages, self.acknowledge)

    def message(self, topic: str, payload: object = None, qos: int = 1, **fields: Any) -> Received:
        data = payload if isinstance(payload, bytes) else json.dumps({} if payload is None else payload).encode()
        return Received(topic, data, qos, mid=next(self._mids) if qos else 0, received_at=AT, **fields)

    def send(self, topic: str, payload: object = None, qos: int = 1, **fields: Any) -> int:
        """Deliver one message in a reading of its own; return its packet id."""
        received = self.message(topic, payload, qos, **fields)
        self.receive(received)
        return received.mid

    async def until(self, condition: Callable[[], object]) -> None:
        with anyio.fail_after(5):
            while not condition():
                await self._changed.wait()

    async def until_idle(self) -> None:
        """Return when nothing is to be done at once."""
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()

    async def answer(self, number: int = 0) -> JSON:
        await self.until(lambda: len(self.answers) > number)
        return cast("JSON", json.loads(self.answers[number].payload))

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.dispatcher.serve)
            yield
            self.dispatcher.close()

    def reasons(self) -> list[str]:
        return [letter.reason for letter in self.store.dead_letters()]


def noting(kind: type[Plugin], topic: str, name: str, seen: list[tuple[str, str]]) -> None:
    """Register a handler that notes its name and the topic."""

    @kind.topic(topic)
    class Noting(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            seen.append((name, message.topic))


class Gates:
    """Lets calls go on one by one, by payload."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, anyio.Event] = {}

    async def pass_through(self, name: str) -> None:
        self.running.append(name)
        await self._gates.setdefault(name, anyio.Event()).wait()
        self.running.remove(name)
        self.ended.append(name)

    async def open(self, name: str) -> None:
        self._gates.setdefault(name, anyio.Event()).set()
        await anyio.wait_all_tasks_blocked()


def gated(kind: type[Plugin], gates: Gates, **options: Any) -> None:
    @kind.topic("Events/{host}")
    class Gated(Handler[Plugin]):
        async def handle(self, message: Message[str]) -> None:
            await gates.pass_through(message.payload)

    for name, value in options.items():
        setattr(Gated, name, value)


def commanding(result: Callable[[Message[JSON]], object], **options: Any) -> type[Plugin]:
    """Return a plugin whose command `scan` returns what a function makes of the message."""
    kind = fresh()

    @kind.command("scan")
    class Scan(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> object:
            return result(message)

    for name, value in options.items():
        setattr(Scan, name, value)
    return kind


def raising(error: Exception) -> Callable[[Message[JSON]], object]:
    def fail(message: Message[JSON]) -> object:
        raise error

    return fail


def failing(store: Store, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(store, method, fail)
