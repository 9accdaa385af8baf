"""The agent's side of `send` and `settings`: a loopback listener that answers who holds the token."""

import asyncio
import hmac
import json
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import psutil

from kepm_plugin.devagent.accepting import accepting
from kepm_plugin.devagent.layout import Layout, listener, write_private
from kepm_plugin.devagent.live import listed, live_file
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import KepmError

LARGEST: Final = 16 * 1024 * 1024
REQUEST_WITHIN: Final = 10.0

Action = Callable[[Mapping[str, Any]], Awaitable[Any]]


class _Control:
    def __init__(self, actions: Mapping[str, Action]) -> None:
        self.token = secrets.token_urlsafe(32)
        self._actions = actions

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request: a line of JSON, and one back."""
        try:
            with anyio.fail_after(REQUEST_WITHIN):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, AttributeError, RecursionError):
            return  # the caller is gone, or was none of ours
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        request: dict[str, Any] = json.loads(line)
        if not hmac.compare_digest(str(request.get("token")), self.token):
            return {"ok": False, "error": "AgentError", "message": "wrong token; this is another agent, start anew"}
        action = self._actions.get(str(request.get("action")))
        if action is None:
            return {"ok": False, "error": "AgentError", "message": "unknown action; agent and client differ in version"}
        try:
            return {"ok": True, "result": await action(request["arguments"])}
        except KepmError as exc:
            return {"ok": False, "error": type(exc).__name__, "message": str(exc)}
        except (KeyError, TypeError) as exc:
            return {"ok": False, "error": "UsageError", "message": f"wrong arguments: {exc}"}


def _list(layout: Layout, terminal: Terminal) -> None:
    """Make this one of the agents that `send` finds without a root; agents that were killed are taken off the list."""
    path = live_file(layout.root)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for root, leftover in listed().items():
            if not _lives(root):
                leftover.unlink(missing_ok=True)
        write_private(path, f"{layout.root}\n")
    except OSError as exc:
        terminal.warn(f"{path} cannot be written ({exc.strerror}): `kepm-plugin send` needs --root {layout.root}")


def _lives(root: Path) -> bool:
    """Tell whether the agent on a root may be alive, by the process that its control file names."""
    try:
        content = json.loads((root / ".dev" / "control.json").read_text(encoding="utf-8"))
        return psutil.pid_exists(int(content["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


@asynccontextmanager
async def controlled(layout: Layout, actions: Mapping[str, Action], terminal: Terminal) -> AsyncGenerator[None]:
    """Offer actions to `ControlClient` for the time of the block."""
    control = _Control(actions)
    sock: socket.socket = listener(None, "control")
    port = sock.getsockname()[1]
    async with accepting(control.serve, sock, name="control", limit=LARGEST):
        content = {"port": port, "token": control.token, "pid": os.getpid(), "root": str(layout.root)}
        write_private(layout.control, json.dumps(content) + "\n")
        _list(layout, terminal)
        try:
            yield
        finally:
            with suppress(OSError):
                live_file(layout.root).unlink()
            layout.control.unlink(missing_ok=True)
