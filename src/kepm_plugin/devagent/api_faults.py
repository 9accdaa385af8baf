"""Faults of the HTTPS API, as a layer around the application."""

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import ApiFault, ApiHangs, ApiRefused, ApiSlow
from kepm_plugin.devagent.registry import Registry


class FaultyApi:
    """The API with the faults that are in force; without any it costs nothing."""

    def __init__(self, app: ASGIApp, faults: Faults, registry: Registry) -> None:
        self._app, self._faults, self._registry = app, faults, registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and self._faults.any(ApiFault):
            path: str = scope["path"]
            plugin_id = await self._plugin_id(scope)

            def concerned(fault: ApiFault) -> bool:
                return path.startswith(fault.path)

            if self._faults.take(ApiHangs, plugin_id, concerned) is not None:
                while (await receive())["type"] != "http.disconnect":
                    continue
                return
            if (slow := self._faults.take(ApiSlow, plugin_id, concerned)) is not None:
                await anyio.sleep(slow.delay)
            if (refused := self._faults.take(ApiRefused, plugin_id, concerned)) is not None:
                answer = JSONResponse({"error": "a fault of the local agent"}, status_code=refused.status)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _plugin_id(self, scope: Scope) -> str | None:
        client, server = scope["client"], scope["server"]
        if client is None or server is None:
            return None
        return (await self._registry.caller((client[0], client[1]), (server[0], server[1]))).plugin_id
