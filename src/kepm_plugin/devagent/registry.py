"""Which process is behind a loopback connection, and whether the agent launched it (kepm-facts, section 2.2)."""

import asyncio
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import psutil

Address = tuple[str, int]
"""Host and port of one end of a connection."""

_SHOWN: Final = 120
_CALLER: Final = "kepm_plugin.caller"


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that the agent launched. `process` compares start times, so a reused number is not trusted."""

    plugin_id: str
    process: psutil.Process
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end.

    Attributes:
        plugin_id: The plugin whose process it is, None for everybody else.
        who: Words for the developer.
    """

    plugin_id: str | None
    who: str


class Registry:
    """The launched processes. Filled by the orchestrator, asked by gate and API."""

    def __init__(self, *, trust_children: bool = False, registration_delay: float = 0.0) -> None:
        self._trust_children, self._delay = trust_children, registration_delay
        self._launched: dict[int, Launched] = {}
        self.launching = asyncio.Lock()
        """Held while a process is started and registered, so that none is asked about in between."""

    def add(self, plugin_id: str, pid: int) -> None:
        """Register a process that was just launched; one that is gone already is not kept."""
        with suppress(psutil.Error):
            self._launched[pid] = Launched(plugin_id, psutil.Process(pid))

    def remove(self, pid: int) -> None:
        """Forget a process that ended."""
        self._launched.pop(pid, None)

    async def caller(self, peer: Address, here: Address) -> Caller:
        """Find who opened the connection from `peer` to `here`. Asks the system, in a thread."""
        async with self.launching:
            launched = tuple(self._launched.values())
        return await anyio.to_thread.run_sync(self._look, peer, here, launched)

    async def behind(self, scope: MutableMapping[str, Any]) -> Caller:
        """Find who sent a request of the API, and note it in its scope: a connection that is closed names nobody."""
        if _CALLER not in scope:
            client, server = scope["client"], scope["server"]
            if client is None or server is None:
                return Caller(None, "a connection that is closed already")
            scope[_CALLER] = await self.caller((client[0], client[1]), (server[0], server[1]))
        found: Caller = scope[_CALLER]
        return found

    def _look(self, peer: Address, here: Address, launched: tuple[Launched, ...]) -> Caller:
        for entry in launched:
            for process in self._trusted(entry):
                if _holds(process, peer, here):
                    age = time.monotonic() - entry.since
                    if age < self._delay:
                        left = self._delay - age
                        return Caller(
                            None, f"{entry.plugin_id} (process {process.pid}), not registered for {left:.1f} s"
                        )
                    return Caller(entry.plugin_id, f"{entry.plugin_id} (process {process.pid})")
        return Caller(None, _stranger(peer, here))

    def _trusted(self, entry: Launched) -> Iterator[psutil.Process]:
        with suppress(psutil.Error):
            if entry.process.is_running():
                yield entry.process
                if self._trust_children:
                    yield from entry.process.children(recursive=True)


def _holds(process: psutil.Process, peer: Address, here: Address) -> bool:
    """Tell whether a process has the socket at the other end of our connection."""
    with suppress(psutil.Error):
        return any(
            tuple(connection.laddr) == peer and tuple(connection.raddr) == here
            for connection in process.net_connections("tcp4")
        )
    return False


def _stranger(peer: Address, here: Address) -> str:
    """Describe a process that the agent did not launch, as far as the system tells."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp4"):
            if connection.pid and tuple(connection.laddr) == peer and tuple(connection.raddr) == here:
                command = " ".join(psutil.Process(connection.pid).cmdline())[:_SHOWN]
                return f"process {connection.pid} ({command}), which the agent did not launch"
    return "a process that the agent did not launch"
