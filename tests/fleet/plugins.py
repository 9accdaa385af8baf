"""`python -m tests.fleet.plugins COUNT FIRST API`: many plugins in one process, each with a link of its own.

They are the framework's runtime with the broker's sessions, the agent's client, settings, heartbeat and echo that a
plugin's process has. What they lack is the process: its start, its memory, its own turn on a processor.
Told on standard output, in JSON lines: when all serve, with what each attempt since the last time came to.
"""

import json
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any

import anyio

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.agent import open_agent
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.contract import ASSUMED
from kepm_plugin.errors import AgentError
from kepm_plugin.link import Deliver, Session
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication
from kepm_plugin.runtime import Serving, Surroundings
from kepm_plugin.store import memory_store


def plugin(number: int) -> type[Plugin]:
    """Return a plugin with a handler."""
    kind: type[Plugin] = type(f"P{number:03}", (Plugin,), {"id": f"P{number:03}", "__doc__": "One of many."})

    @kind.topic("Events/{host}")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            """Take it."""

    return kind


@dataclass
class Fleet:
    """What became of the attempts of all of them since all served."""

    count: int
    up: dict[str, float] = field(default_factory=dict[str, float])
    attempts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    complete: bool = False

    def serves(self, name: str) -> None:
        """Note that one serves, and tell when all do."""
        self.up[name] = time.monotonic()
        if len(self.up) == self.count and not self.complete:
            self.complete = True
            self._tell("all serve", served=sorted(self.up.values()), attempts=self.attempts)
            self.attempts = []

    def lost(self, name: str) -> None:
        """Note that one does not."""
        self.up.pop(name, None)
        self.complete = False

    def attempted(self, began: float, outcome: str) -> None:
        """Note an attempt."""
        self.attempts.append({"at": began, "took": time.monotonic() - began, "outcome": outcome})

    def _tell(self, event: str, **details: Any) -> None:
        print(json.dumps({"event": event, **details}), flush=True)

    @asynccontextmanager
    async def session(
        self, name: str, choice: ProtocolChoice, host: str, port: int, will: Publication | None, deliver: Deliver
    ) -> AsyncGenerator[Session]:
        """Open a session as a plugin's process does."""
        began, connected = time.monotonic(), False
        options = SessionOptions(client_id=name, will=will)
        try:
            async with open_session(BrokerAddress(host=host, port=port), options, choice, deliver) as session:
                connected = True
                self.attempted(began, "connected")
                yield session
        except AgentError as exc:
            if not connected:
                self.attempted(began, "gave up" if "gave up" in str(exc) else "refused")
            raise
        finally:
            self.lost(name)


async def serve(fleet: Fleet, number: int, api: str, logs: Any, pipe: LogPipe) -> None:
    """Run one plugin."""
    kind = plugin(number)
    opener = partial(fleet.session, kind.id, ProtocolChoice())
    async with open_agent(api) as agent:
        serving = Serving(
            kind,
            Surroundings(
                agent=agent,
                open_session=opener,
                open_store=memory_store,
                pipe=pipe,
                logs=logs,
                contract=ASSUMED,
                stop=anyio.Event(),
                try_lock=lambda: True,
                orphaned=lambda: False,
            ),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serving.run)
            while True:
                await serving.uplink.next_up().wait()
                fleet.serves(kind.id)


async def main(arguments: Sequence[str]) -> None:
    """Run all of them until killed."""
    count, first, api = int(arguments[0]), int(arguments[1]), arguments[2]
    fleet, pipe = Fleet(count), LogPipe()
    with logging_to(pipe, source="Fleet", fallback=StringIO()) as logs:
        async with anyio.create_task_group() as tasks:
            for number in range(first, first + count):
                tasks.start_soon(serve, fleet, number, api, logs, pipe)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
