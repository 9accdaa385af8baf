"""One attempt over each transport, by the doors that a plugin uses, and what comes of it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from kepm_plugin.agent import open_agent
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.errors import AgentError, KepmError, LinkLost
from kepm_plugin.link import Deliver, History, Link, LinkOptions, Session
from kepm_plugin.message import Received
from kepm_plugin.peer import PeerPolicy
from kepm_plugin.plugin import Gap
from kepm_plugin.runtime._settings import patiently

PATIENCE: Final = 10.0
"""Seconds for a request, and for a connection to the broker, that nobody leaves without an answer."""
PLENTY: Final = 600.0
"""Seconds in which everything is tried again that is tried again at all."""


@dataclass(frozen=True)
class Way:
    """Where to connect, and what must be shown there."""

    host: str
    port: int
    bundle: Path | None = None
    peer: PeerPolicy = "warn"
    patience: float = PATIENCE


@dataclass(frozen=True)
class Outcome:
    """What came of it: nothing, or what was said, whether it is tried again, and what then ends the plugin."""

    said: KepmError | None = None
    again: bool = False
    ends: int = 0


class Again(Exception):
    """It would be tried again."""


async def over_https(way: Way) -> Outcome:
    """Ask for settings as a plugin does at its start."""
    said: list[AgentError] = []

    def again() -> None:
        raise Again

    try:
        async with open_agent(
            f"https://{way.host}:{way.port}", ca_bundle=way.bundle, peer=way.peer, timeout=way.patience
        ) as agent:

            async def get() -> dict[str, str]:
                try:
                    return await agent.settings("MyWorker")
                except AgentError as error:
                    said.append(error)
                    raise

            assert await patiently(get, PLENTY, again) == {"root": "/etc"}
    except Again:
        return Outcome(said[0], True, said[0].exit_code)
    except KepmError as error:
        return Outcome(error, False, error.exit_code)
    return Outcome()


class Watcher:
    """The link's observer, which waits for a session."""

    def __init__(self) -> None:
        self.is_up = anyio.Event()

    def received(self, batch: Sequence[Received], session: Session) -> None: ...

    async def up(self, session: Session, gap: Gap | None) -> None:
        self.is_up.set()

    async def down(self, reason: str) -> None: ...

    def proof(self, proven: bool) -> None: ...

    def taken_over(self, reason: str | None) -> None: ...

    def beat(self, up: bool) -> None: ...


class Dialling:
    """Opens sessions as the link wants them, and keeps what was said."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.tries = 0
        self.first: KepmError | None = None
        self.again = anyio.Event()

    @asynccontextmanager
    async def connect(self, deliver: Deliver) -> AsyncGenerator[Session]:
        self.tries += 1
        if self.tries == 2:
            self.again.set()
        way = self.way
        options = SessionOptions(
            client_id="MyWorker", connect_timeout=way.patience, ca_bundle=way.bundle, peer=way.peer
        )
        try:
            async with open_session(
                BrokerAddress(host=way.host, port=way.port), options, ProtocolChoice(), deliver
            ) as session:
                yield session
        except KepmError as error:
            self.first = self.first or error
            raise


def link_of(dialling: Dialling, watcher: Watcher, budget: float, history: History | None = None) -> Link:
    """Return a link that subscribes nothing and hurries."""
    options = LinkOptions(filters=lambda: (), budget=budget, first_delay=0.01, max_delay=0.05)
    return Link(dialling.connect, watcher, options, history)


async def first_of(*ends: Callable[[], Awaitable[object]]) -> None:
    """Return when one of several has ended; the others are cancelled."""
    async with anyio.create_task_group() as tasks:

        async def until(end: Callable[[], Awaitable[object]]) -> None:
            await end()
            tasks.cancel_scope.cancel()

        for end in ends:
            tasks.start_soon(until, end, name="end")


async def over_mqtt(way: Way) -> Outcome:
    """Connect as a plugin's link does, until it is up or is tried again; and see what ends it when its time is over."""
    dialling, watcher = Dialling(way), Watcher()
    await first_of(link_of(dialling, watcher, PLENTY).run, watcher.is_up.wait, dialling.again.wait)
    if dialling.first is None:
        return Outcome()
    return Outcome(dialling.first, dialling.again.is_set(), await exit_code(way))


async def exit_code(way: Way) -> int:
    """Return what a plugin ends with whose link has no time left."""
    try:
        await link_of(Dialling(way), Watcher(), 0.0).run()
    except LinkLost as error:
        return error.exit_code
    raise AssertionError("unreachable: the budget is spent")
