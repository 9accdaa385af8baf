"""The gate's listener: accepts, answers TLS, and can be shut, moved, or made to leave callers without an answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup

from kepm_plugin.devagent.accepting import HANDSHAKE_WITHIN, SHUTDOWN_WITHIN
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import Mute
from kepm_plugin.devagent.layout import WAITING, listener
from kepm_plugin.devagent.registry import Registry
from kepm_plugin.devagent.terminal import Terminal

LIMIT: Final = 64 * 1024
PAUSE: Final = 0.1
"""Seconds without accepting when the system has no more descriptors."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """One listening socket after another, on one context.

    Attributes:
        port: Where it listens, or would.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, registry: Registry, faults: Faults, terminal: Terminal
    ) -> None:
        """Take a socket that listens."""
        self.port: int = sock.getsockname()[1]
        self._sock, self._context, self._registry = sock, context, registry
        self._faults, self._terminal = faults, terminal
        self._tasks: TaskGroup | None = None
        self._accepting: anyio.CancelScope | None = None
        self._is_open = False
        self._ended = asyncio.Event()
        self._serve: Serve | None = None
        self._is_up: Callable[[], bool] = lambda: True

    @asynccontextmanager
    async def opened(self, serve: Serve, is_up: Callable[[], bool]) -> AsyncGenerator[None]:
        """Serve each connection in a task of its own, for the time of the block; reset it while there is no broker."""
        self._serve, self._is_up = serve, is_up
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self.open()
                try:
                    yield
                finally:
                    self._tasks = None
                    tasks.cancel_scope.cancel()
        finally:
            self._sock.close()

    def open(self) -> None:
        """Accept; nothing where it does already, or where the agent ends."""
        if self._is_open or self._tasks is None:
            return
        self._sock.listen(WAITING)
        self._is_open, self._ended = True, asyncio.Event()
        self._tasks.start_soon(self._accept, self._sock, self._ended, name="gate.accept")

    async def shut(self) -> None:
        """Close the port, so that the system refuses connections; the number is kept."""
        await self._close()
        self._sock = listener(self.port, "MQTT", listening=False)

    async def move(self, port: int | None) -> None:
        """Listen on another port, any free one where none is given, and no longer on this one.

        Raises:
            AgentError: The port is taken; nothing has changed.
        """
        new = listener(port, "MQTT")
        await self._close()
        self._sock, self.port = new, new.getsockname()[1]
        self.open()

    async def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            if self._accepting is not None:
                self._accepting.cancel()
            await self._ended.wait()  # the loop must have let go of the socket before its number is free
        self._sock.close()

    async def _accept(self, sock: socket.socket, ended: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Made here: a fault that is over opens the port from a timer, where there is no task to ask for its loop.
            with anyio.CancelScope() as self._accepting:
                while self._is_open:
                    try:
                        connection, peer = await loop.sock_accept(sock)
                    except OSError as exc:
                        self._terminal.error(f"MQTT: no connection can be accepted: {exc.strerror}")
                        await anyio.sleep(PAUSE)
                        continue
                    if self._tasks is None:
                        connection.close()
                        return
                    self._tasks.start_soon(self._welcome, connection, peer, name="gate.connection")
        finally:
            self._accepting = None
            ended.set()

    async def _welcome(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        if not self._is_up():  # as near as can be to a port on which nobody listens
            connection.close()
            return
        if self._faults.any(Mute):
            with suppress(OSError):
                caller = await self._registry.caller(peer, connection.getsockname())
                if self._faults.take(Mute, caller.plugin_id) is not None:
                    with connection:
                        await _listen_only(connection)
                    return
        await self._answer(connection)

    async def _answer(self, connection: socket.socket) -> None:
        """Answer TLS, and hand the connection over."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(LIMIT, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        with suppress(OSError):  # whoever it is does not speak TLS, or has left
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_WITHIN,
                ssl_shutdown_timeout=SHUTDOWN_WITHIN,
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            if self._serve is not None:
                await self._serve(reader, writer)


async def _listen_only(connection: socket.socket) -> None:
    """Take what comes until the other side closes, and say nothing."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while await loop.sock_recv(connection, LIMIT):
            continue
