"""How `kepm-plugin send` and `kepm-plugin settings` reach a running local agent. Standard library only.

The agent listens on loopback; port and a random token are in an owner-only file of its root. Without a root the only
running agent of this user that has the plugin is meant.
"""

import json
import shlex
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kepm_plugin import errors
from kepm_plugin.contract import SYSTEM_PLUGIN
from kepm_plugin.devagent.faults import Fault
from kepm_plugin.devagent.live import listed
from kepm_plugin.errors import AgentError, AgentUnreachable, KepmError, UsageError

PATIENCE: Final = 5.0
"""Seconds beyond an action's own timeout until the agent itself is given up."""

_START: Final = "start one with `kepm-plugin dev`"
_LARGEST: Final = 64 * 1024 * 1024
_BY_NAME: Final = {
    name: getattr(errors, name)
    for name in ("AgentError", "UnknownPlugin", "NoAnswer", "LinkLost", "ManifestError", "UsageError")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlClient:
    """Talks to one local agent; each call is a connection of its own."""

    root: Path
    port: int
    token: str

    @classmethod
    def find(cls, root: Path | None = None, plugin: str | None = None) -> "ControlClient":
        """Find a running agent by its root; without one, the only agent of this user that runs and has the plugin.

        Where one agent runs alone it is found whatever its plugins, so that it can say which it has.

        Raises:
            AgentUnreachable: There is none.
            UsageError: Several fit, or several run and none of them has the plugin.
        """
        if root is None:
            return cls._only(plugin)
        path = root / ".dev" / "control.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(root=root, port=int(content["port"]), token=str(content["token"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise AgentUnreachable(f"no local agent is running on {root}; {_START}") from exc

    @classmethod
    def _only(cls, plugin: str | None) -> "ControlClient":
        running: dict[ControlClient, dict[str, dict[str, Any]]] = {}
        for root in listed():
            with suppress(AgentError):
                client = cls.find(root)
                running[client] = client.plugins()
        if not running:
            raise AgentUnreachable(f"no local agent is running; {_START}, or name its root with --root")
        if len(running) == 1:
            return next(iter(running))
        named = plugin is not None and plugin != SYSTEM_PLUGIN
        having = [one for one, plugins in running.items() if not named or plugin in plugins]
        if len(having) == 1:
            return having[0]
        roots = "; ".join(
            f"--root {shlex.quote(str(one.root))} ({', '.join(running[one]) or 'no plugins'})"
            for one in having or running
        )
        if not having:
            raise UsageError(f"none of the local agents that run has {plugin!r}; name the one that is to: {roots}")
        raise UsageError(f"{len(having)} local agents {f'have {plugin}' if named else 'run'}; name one: {roots}")

    def send(
        self, plugin: str, command: str, payload: Mapping[str, Any] | None = None, timeout: float = 10.0
    ) -> dict[str, Any]:
        """Send a command to a plugin and return its response.

        Args:
            plugin: The plugin's id.
            command: What follows `<Id>/Commands/`.
            payload: A JSON object; the correlation id is added.
            timeout: Seconds, for the plugin to subscribe and to answer.

        Raises:
            UnknownPlugin: No such plugin.
            AgentError: It is not running.
            NoAnswer: Nobody answered in time.
        """
        arguments = {"plugin": plugin, "command": command, "payload": dict(payload or {}), "timeout": timeout}
        answer: dict[str, Any] = self._ask("send", arguments, timeout)
        return answer

    def get_settings(self, plugin: str) -> dict[str, str]:
        """Return the merged settings of a plugin, or of `KeeperPrivilegeManager`."""
        answer: dict[str, str] = self._ask("get_settings", {"plugin": plugin})
        return answer

    def set_setting(self, plugin: str, key: str, value: str | float | bool) -> bool:
        """Store a value over the file's; tell whether the file has one."""
        in_file: bool = self._ask("set_setting", {"plugin": plugin, "key": key, "value": value})
        return in_file

    def revert_settings(self, plugin: str | None = None) -> None:
        """Go back to the file's values, of one plugin or of all."""
        self._ask("revert_settings", {"plugin": plugin})

    def settings_status(self, plugin: str) -> dict[str, Any]:
        """Return which settings differ from the file."""
        answer: dict[str, Any] = self._ask("settings_status", {"plugin": plugin})
        return answer

    def settings_layers(self, plugin: str) -> dict[str, Any]:
        """Return `stored`, `file` (as imported), `fileChanged` since then, and `program`: the command, or None."""
        answer: dict[str, Any] = self._ask("settings_layers", {"plugin": plugin})
        return answer

    def plugins(self) -> dict[str, dict[str, Any]]:
        """Return all plugins by id: name, status, pid, started_at, launches, exit_code."""
        answer: dict[str, dict[str, Any]] = self._ask("plugins", {})
        return answer

    def describe(self) -> dict[str, Any]:
        """Return root, api_base, broker (host, port), engine, engine_pid and pid of the agent."""
        answer: dict[str, Any] = self._ask("describe", {})
        return answer

    def start(self, plugin: str) -> None:
        """Launch a plugin."""
        self._ask("start", {"plugin": plugin})

    def stop(self, plugin: str) -> None:
        """Stop a plugin; returns when it has ended."""
        self._ask("stop", {"plugin": plugin}, 60.0)

    def restart(self, plugin: str) -> None:
        """Stop a plugin and launch it, by its file as it is now."""
        self._ask("restart", {"plugin": plugin}, 60.0)

    def kill_engine(self, pause: float = 0.0) -> None:
        """Kill the broker engine (SIGKILL); it comes back by itself, after `pause` seconds."""
        self._ask("kill_engine", {"pause": pause})

    def kill_plugin(self, plugin: str, signal: str = "SIGKILL") -> None:
        """Send a signal, by its name, to a plugin's process."""
        self._ask("kill_plugin", {"plugin": plugin, "signal": signal})

    def fault(self, fault: Fault) -> int:
        """Put a fault in force and return its number; it ends by itself.

        Raises:
            UnknownPlugin: It is about a plugin that is not there.
            AgentError: The port to move to is taken, or the plugin to suspend is not running.
        """
        answer: int = self._ask("fault", {"fault": fault.values()})
        return answer

    def clear_faults(self, number: int | None = None) -> None:
        """End a fault, or all."""
        self._ask("clear_faults", {"number": number})

    def faults(self) -> dict[str, Any]:
        """Return `active`, the faults in force, and `counts`, how often each kind acted."""
        answer: dict[str, Any] = self._ask("faults", {})
        return answer

    def deliveries(self, plugin: str, since: int = 0) -> dict[str, Any]:
        """Return what a plugin was sent and acknowledged, as `Deliveries.page` does: at most 20,000 rows."""
        answer: dict[str, Any] = self._ask("deliveries", {"plugin": plugin, "since": since})
        return answer

    def _ask(self, action: str, arguments: Mapping[str, Any], timeout: float = 0.0) -> Any:
        request = json.dumps({"token": self.token, "action": action, "arguments": arguments}).encode() + b"\n"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
                sock.settimeout(timeout + PATIENCE)
                sock.sendall(request)
                with sock.makefile("rb") as stream:
                    line = stream.readline(_LARGEST)
            answer = json.loads(line)
        except TimeoutError as exc:
            raise AgentUnreachable(f"the local agent on {self.root} did not answer in time; is it stopped?") from exc
        except (OSError, ValueError) as exc:
            raise AgentUnreachable(f"no local agent answers on {self.root}; start it with `kepm-plugin dev`") from exc
        if answer["ok"]:
            return answer["result"]
        kind: type[KepmError] = _BY_NAME.get(answer["error"], AgentError)
        raise kind(answer["message"])
