"""The agent's HTTPS API as far as plugins see it: PluginSettings, health, the list of plugins (kepm-facts, 4 and 5).

Bodies that the vendor does not document are assumed: what has alternatives is in `likeness`, at the rest it is said.
"""

import datetime
import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol, cast

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kepm_plugin.contract import HEALTH_PATH, REVERT, REVERT_ALL, SETTINGS_PATH, STATUS, SYSTEM_PLUGIN
from kepm_plugin.devagent.api_faults import Severable
from kepm_plugin.devagent.likeness import Likeness, Role
from kepm_plugin.devagent.orchestrator import PluginState
from kepm_plugin.devagent.registry import Registry
from kepm_plugin.devagent.storage import spelled
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import ManifestError, UnknownPlugin

LARGEST_BODY: Final = 256 * 1024
STOP_WITHIN: Final = 2.0
VERSION: Final = "dev"

_Endpoint = Callable[[Request], Awaitable[Response]]


class Settings(Protocol):
    """What the API needs of the settings' storage and of the plugins' files."""

    def effective(self, plugin_id: str) -> dict[str, str]:
        """Return the merged settings."""
        ...

    def values(self, plugin_id: str) -> dict[str, object]:
        """Return the merged settings with their types."""
        ...

    def put(self, plugin_id: str, key: str, value: object) -> object:
        """Store a value."""
        ...

    def revert(self, plugin_id: str) -> None:
        """Read the plugin's file again, and forget what is stored."""
        ...

    def revert_all(self) -> None:
        """Revert every plugin."""
        ...

    def status(self, plugin_id: str) -> dict[str, object]:
        """Return what changed."""
        ...


def application(
    settings: Settings,
    registry: Registry,
    plugins: Callable[[], dict[str, PluginState]],
    terminal: Terminal,
    role: Role,
) -> Starlette:
    """Return the API as an ASGI application."""

    def plugin_tier(endpoint: _Endpoint) -> _Endpoint:
        """Let only processes that the agent launched through (HTTP Reference, Authorization Tiers)."""

        async def checked(request: Request) -> Response:
            caller = await registry.behind(request.scope)
            if caller.plugin_id is None:
                terminal.error(f"API: {request.method} {request.url.path} refused with 403: it came from {caller.who}")
                raise HTTPException(403, "only processes that the agent launched and registered may call this")
            try:
                return await endpoint(request)
            except UnknownPlugin as exc:
                terminal.warn(f"API: {caller.who}: {request.method} {request.url.path}: 404, {exc}")
                raise HTTPException(404, str(exc)) from exc
            except ManifestError as exc:
                terminal.error(f"API: {caller.who}: {request.method} {request.url.path}: {exc}")
                raise HTTPException(500, str(exc)) from exc

        return checked

    async def get_all(request: Request) -> Response:
        values = settings.values(request.path_params["plugin"])
        return JSONResponse({key: spelled(value, role.like.spelling) for key, value in values.items()})

    async def get_one(request: Request) -> Response:
        plugin, key = request.path_params["plugin"], request.path_params["setting"]
        values = settings.effective(plugin)
        if key not in values:  # assumed: the answer to an unknown setting is not documented
            raise UnknownPlugin(f"{plugin} has no setting {key!r}; it has: {', '.join(values) or 'none'}")
        if role.like.single == "text":
            return PlainTextResponse(values[key])
        return JSONResponse(values[key] if role.like.single == "bare" else {role.like.single_name: values[key]})

    async def put_one(request: Request) -> Response:
        plugin, key = request.path_params["plugin"], request.path_params["setting"]
        settings.effective(plugin)
        if role.like.put_tier == "admin":
            terminal.error(f"API: {plugin}: setting {key} was not written: 403, only administrators may write settings")
            raise HTTPException(403, "only administrators may write settings")
        value = _value(await _body(request), role.like)
        settings.put(plugin, key, value)
        terminal.agent(f"API: {plugin}: setting {key} was written")
        return JSONResponse({"value": settings.effective(plugin)[key]})

    async def revert(request: Request) -> Response:
        plugin = request.path_params["plugin"]
        settings.revert(plugin)
        terminal.agent(f"API: {plugin}: settings were reverted to the file")
        return JSONResponse({"pluginName": plugin, "reverted": True})

    async def revert_all(_: Request) -> Response:
        settings.revert_all()
        terminal.agent("API: the settings of all plugins were reverted to their files")
        return JSONResponse({"reverted": True})

    async def status(request: Request) -> Response:
        return JSONResponse(settings.status(request.path_params["plugin"]))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "healthy", "timestamp": _timestamp(), "version": VERSION})

    async def service(_: Request) -> Response:
        return JSONResponse({"service": SYSTEM_PLUGIN, "status": "running", "version": VERSION})

    async def system_status(_: Request) -> Response:
        return JSONResponse({"running": True, "pluginCount": len(plugins()), "jobCount": 0, "jobsEnabled": 0})

    async def list_plugins(_: Request) -> Response:
        rows = [
            {
                "id": state.id,
                "name": state.name,
                "status": state.status,
                "processId": state.pid,
                "lastStartTime": None if state.started_at is None else _timestamp(state.started_at),
            }
            for state in plugins().values()
        ]
        return JSONResponse({"plugins": rows, "count": len(rows)})

    one, named = f"{SETTINGS_PATH}/{{plugin}}/{{setting}}", f"{SETTINGS_PATH}/{{plugin}}"
    return Starlette(
        routes=[
            Route("/", service),
            Route(HEALTH_PATH, health),
            Route("/api/system/status", system_status),
            Route("/api/plugins", plugin_tier(list_plugins)),
            Route(f"{SETTINGS_PATH}/{REVERT_ALL}", plugin_tier(revert_all), methods=["POST"]),
            Route(f"{named}/{REVERT}", plugin_tier(revert), methods=["POST"]),
            Route(f"{named}/{STATUS}", plugin_tier(status)),
            Route(named, plugin_tier(get_all)),
            Route(one, plugin_tier(get_one)),
            Route(one, plugin_tier(put_one), methods=["PUT"]),
        ],
        exception_handlers={HTTPException: _error},
    )


async def _error(_: Request, exc: Exception) -> Response:
    """Answer with JSON; the agent's error body is not documented."""
    code = exc.status_code if isinstance(exc, HTTPException) else 500
    return JSONResponse({"error": exc.detail if isinstance(exc, HTTPException) else "error"}, status_code=code)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"a setting's value is at most {LARGEST_BODY} bytes")
    return bytes(body)


def _value(body: bytes, like: Likeness) -> object:
    """Return the value in a `PluginSettingValue`."""
    kind = "a string" if like.put_types == "string" else "a string, number or boolean"
    expected = f'the body must be {{"{like.put_name}": …}} with {kind}'
    try:
        content: Any = json.loads(body)
    except ValueError as exc:
        raise HTTPException(400, f"{expected}; it is no JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise HTTPException(400, expected)
    value = like.value_in(cast("dict[str, object]", content))
    if value is None:
        raise HTTPException(400, expected)
    return value


def _timestamp(seconds: float | None = None) -> str:
    """Return a time as `/health` spells it: `2026-06-30T10:30:00Z`."""
    moment = (
        datetime.datetime.now(datetime.UTC)
        if seconds is None
        else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Server(uvicorn.Server):
    """uvicorn as a part of a program: it leaves signals alone, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the process's signals to the agent."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serving(app: ASGIApp, sock: socket.socket, context: ssl.SSLContext) -> AsyncGenerator[None]:
    """Serve the API on a listening socket for the time of the block."""
    config = uvicorn.Config(
        app,
        http=Severable,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level=logging.CRITICAL,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    config.load()
    config.ssl = context  # a context from memory; the options for it take file names
    server = _Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [sock], name="api.serve")
        await server.listens.wait()
        try:
            yield
        finally:
            server.should_exit = True
            tasks.cancel_scope.shield = True
            tasks.cancel_scope.deadline = anyio.current_time() + STOP_WITHIN
