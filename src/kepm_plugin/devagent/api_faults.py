"""Faults of the HTTPS API, as a layer around the application."""

import asyncio
from typing import Any, Final

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import ApiCut, ApiFault, ApiHangs, ApiLate, ApiRefused, ApiSlow
from kepm_plugin.devagent.registry import Registry

_CONNECTION: Final = "connection"


class Severable(H11Protocol):
    """A connection of the API that `FaultyApi` can cut: ASGI itself has no way to."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Put the connection into the state that each request of it is given."""
        self.app_state = self.app_state | {_CONNECTION: transport}
        super().connection_made(transport)


class FaultyApi:
    """The API with the faults that are in force; without any it costs nothing."""

    def __init__(self, app: ASGIApp, faults: Faults, registry: Registry) -> None:
        self._app, self._faults, self._registry = app, faults, registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and self._faults.any(ApiFault):
            await self._suffer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _suffer(self, scope: Scope, receive: Receive, send: Send) -> None:
        plugin_id = (await self._registry.behind(scope)).plugin_id

        def concerned(fault: ApiFault) -> bool:
            return scope["path"].startswith(fault.path) and fault.method in ("", scope["method"])

        if (hangs := self._faults.take(ApiHangs, plugin_id, concerned)) is not None:
            if hangs.applied:
                await self._apply(scope, receive)
            while (await receive())["type"] != "http.disconnect":
                continue
            return
        if (late := self._faults.take(ApiLate, plugin_id, concerned)) is not None:
            receive = await _received(receive)  # before its client can be gone, and the rest of it
            await anyio.sleep(late.delay)
        if (slow := self._faults.take(ApiSlow, plugin_id, concerned)) is not None:
            await anyio.sleep(slow.delay)
        if (cut := self._faults.take(ApiCut, plugin_id, concerned)) is not None:
            if cut.applied:
                await self._apply(scope, receive)
            connection: asyncio.Transport = scope["state"][_CONNECTION]
            connection.abort()
            return
        if (refused := self._faults.take(ApiRefused, plugin_id, concerned)) is not None:
            if refused.applied:
                await self._apply(scope, receive)
            answer = JSONResponse({"error": "a fault of the local agent"}, status_code=refused.status)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _apply(self, scope: Scope, receive: Receive) -> None:
        """Carry a request out; nobody learns what the API answered."""

        async def unheard(_: Message) -> None:
            return

        await self._app(scope, await _received(receive), unheard)


async def _received(receive: Receive) -> Receive:
    """Read a request to its end; return what gives it once more."""
    messages: list[Message] = []
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    return again
