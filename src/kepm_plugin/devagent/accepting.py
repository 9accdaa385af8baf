"""A listener whose connections are tasks of one group."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

HANDSHAKE_WITHIN: Final = 10.0
SHUTDOWN_WITHIN: Final = 1.0
WAITING: Final = 256
"""Accepted connections that no task has taken yet; further ones are closed."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def accepting(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    sock: socket.socket,
    *,
    name: str,
    context: ssl.SSLContext | None = None,
    limit: int = 64 * 1024,
) -> AsyncGenerator[None]:
    """Serve each connection to a listening socket in a task of its own, for the time of the block."""
    accepted: asyncio.Queue[Connection] = asyncio.Queue(WAITING)

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            accepted.put_nowait((reader, writer))
        except asyncio.QueueFull:
            writer.transport.abort()

    async with anyio.create_task_group() as tasks:

        async def start_each() -> None:
            while True:
                tasks.start_soon(serve, *await accepted.get(), name=f"{name}.connection")

        handshake, shutdown = (None, None) if context is None else (HANDSHAKE_WITHIN, SHUTDOWN_WITHIN)
        server = await asyncio.start_server(
            take, sock=sock, ssl=context, limit=limit, ssl_handshake_timeout=handshake, ssl_shutdown_timeout=shutdown
        )
        tasks.start_soon(start_each, name=f"{name}.accept")
        try:
            yield
        finally:
            server.close()
            tasks.cancel_scope.cancel()
            while not accepted.empty():
                accepted.get_nowait()[1].transport.abort()
