"""The local agent as a whole: what it is made of, and what can be asked of it."""

import signal
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import anyio
import psutil

from kepm_plugin.contract import DEFAULT_BROKER_HOST, SYSTEM_PLUGIN
from kepm_plugin.devagent.deliveries import Deliveries
from kepm_plugin.devagent.engine import Engine
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import Fault
from kepm_plugin.devagent.gate import Gate
from kepm_plugin.devagent.inflicting import Inflictor
from kepm_plugin.devagent.layout import Layout
from kepm_plugin.devagent.likeness import Role
from kepm_plugin.devagent.logger import KeeperLogger
from kepm_plugin.devagent.manifests import Manifest, Problem, read_file
from kepm_plugin.devagent.orchestrator import Orchestrator, PluginState
from kepm_plugin.devagent.rights import Rights, covers, well_formed
from kepm_plugin.devagent.sender import command_topic, commands, send_command, unknown_command
from kepm_plugin.devagent.storage import Storage
from kepm_plugin.devagent.traffic import Traffic
from kepm_plugin.errors import AgentError, ManifestError, NoAnswer, UsageError


class DevAgent:
    """A running local agent.

    Attributes:
        root: The agent root.
        api_base: `https://127.0.0.1:<port>`.
        traffic: What went through the gate; `traffic.denied` counts by plugin id what did not.
        logger: `logger.records` are the records that reached KeeperLogger.
        role: Whom it plays; `role.like` may be replaced.
        faults: Those in force, and how often each kind acted.
        deliveries: What the broker sent to each plugin, what the plugin acknowledged, what was dropped.
    """

    def __init__(
        self,
        layout: Layout,
        api_base: str,
        *,
        engine: Engine,
        gate: Gate,
        orchestrator: Orchestrator,
        storage: Storage,
        logger: KeeperLogger,
        rights: dict[str, Rights],
        inflictor: Inflictor,
        role: Role,
    ) -> None:
        self.root, self.api_base = layout.root, api_base
        self.traffic: Traffic = gate.traffic
        self.faults: Faults = inflictor.faults
        self.deliveries: Deliveries = gate.deliveries
        self.logger, self.role, self._inflictor = logger, role, inflictor
        self._layout, self._engine, self._gate, self._orchestrator = layout, engine, gate, orchestrator
        self._storage, self._rights = storage, rights

    @property
    def broker(self) -> tuple[str, int]:
        """Host and port of the gate."""
        return DEFAULT_BROKER_HOST, self._inflictor.door.port

    @property
    def engine(self) -> str:
        """The engine behind the gate, `mosquitto` or `nats`."""
        return self._engine.name

    @property
    def engine_pid(self) -> int | None:
        """The engine's process id, None while it is down."""
        return self._engine.pid

    @property
    def plugins(self) -> Mapping[str, PluginState]:
        """All plugins as they stand now, by id."""
        return self._orchestrator.states()

    def pid(self, plugin_id: str) -> int | None:
        """Return the process id of a plugin, None while it does not run.

        Raises:
            UnknownPlugin: No such plugin.
        """
        self._orchestrator.entry(plugin_id)
        return self.plugins[plugin_id].pid

    async def start(self, plugin_id: str) -> None:
        """Launch a plugin; nothing where it runs.

        Raises:
            UnknownPlugin: No such plugin.
            AgentError: It cannot be launched.
        """
        await self._orchestrator.start(plugin_id)

    async def stop(self, plugin_id: str) -> None:
        """Stop a plugin and return when it has ended.

        Raises:
            UnknownPlugin: No such plugin.
        """
        await self._orchestrator.stop(plugin_id)

    async def restart(self, plugin_id: str) -> None:
        """Stop a plugin and launch it by its file as it is now.

        Raises:
            UnknownPlugin: No such plugin.
            ManifestError: Its file is wrong now; the plugin is left as it was.
            AgentError: It cannot be launched.
        """
        self._orchestrator.entry(plugin_id)
        self.reload_manifest(plugin_id)
        await self._orchestrator.restart(plugin_id)

    def reload_manifest(self, plugin_id: str) -> None:
        """Read a plugin's file again, also a new one: topics hold at once, the rest from the next start on.

        Raises:
            ManifestError: The file is wrong, or is not there.
        """
        others = [entry for key, entry in self._orchestrator.manifests().items() if key != plugin_id]
        found = read_file(self._layout.plugins / f"{plugin_id}.json", others)
        if isinstance(found, Problem):
            raise ManifestError(str(found))
        self.take(found)

    def take(self, manifest: Manifest) -> None:
        """Take one plugin's declarations in: rights, settings, how to launch it."""
        self._rights[manifest.id] = manifest.rights
        self._storage.load(manifest)
        self._orchestrator.load([manifest])

    async def send(
        self, plugin_id: str, command: str, payload: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> dict[str, Any]:
        """Send a command to a plugin, once it is subscribed, and return its response.

        Raises:
            UsageError: The command is no topic, or the plugin is subscribed to commands and this is none of them.
            UnknownPlugin: No such plugin.
            AgentError: It is not running, or the engine went away.
            NoAnswer: Nobody answered in time.
        """
        topic = command_topic(plugin_id, command)
        if not command or not well_formed(topic) or "+" in command or "#" in command:
            raise UsageError(f"command {command!r} is no topic name; give what follows {plugin_id}/Commands/")
        if self.pid(plugin_id) is None:
            ended = self._orchestrator.last_ending(plugin_id)
            status = f"{self.plugins[plugin_id].status}{f'; {ended}' if ended else ''}"
            raise AgentError(f"{plugin_id} is not running ({status}); start it first")
        subscribed = False
        with anyio.move_on_after(timeout):
            await self._wait_command(plugin_id, command)
            subscribed = True
            return await send_command(self._engine, plugin_id, command, payload or {}, self.role.like)
        if subscribed:
            raise NoAnswer(f"{plugin_id} did not answer {topic} within {timeout:g} s")
        if not self._gate.connected(plugin_id):
            ended = self._orchestrator.last_ending(plugin_id) or "what it has written may say why"
            raise NoAnswer(f"{plugin_id} is not connected, and was not within {timeout:g} s; {ended}")
        own = ", ".join(sorted(self._gate.subscribed(plugin_id))) or "nothing"
        raise NoAnswer(f"{plugin_id} did not subscribe to {topic} within {timeout:g} s; it is subscribed to {own}")

    async def _wait_command(self, plugin_id: str, command: str) -> None:
        """Return when the plugin is subscribed to a command.

        Raises:
            UsageError: It is connected, has subscribed to commands, and this is none of them.
        """
        topic = command_topic(plugin_id, command)

        def known() -> list[str]:
            return commands(plugin_id, self._gate.subscribed(plugin_id)) if self._gate.connected(plugin_id) else []

        await self.wait_subscribed(plugin_id)
        await self._gate.wait_subscribed(plugin_id, lambda name: covers(name, topic) or bool(known()))
        if not any(covers(name, topic) for name in self._gate.subscribed(plugin_id)):
            raise UsageError(unknown_command(plugin_id, command, known()))

    async def wait_subscribed(self, plugin_id: str, topic: str | None = None) -> None:
        """Return when the engine holds a subscription of a plugin: one that covers `topic`, or any."""
        await self._engine.wait_up()
        await self._gate.wait_subscribed(plugin_id, lambda name: topic is None or covers(name, topic))

    async def wait_serving(self, plugin_id: str, *, timeout: float = 10.0) -> None:
        """Return when a plugin is connected and subscribed to something.

        Raises:
            TimeoutError: It is not, in time.
        """
        with anyio.fail_after(timeout):
            await self.wait_subscribed(plugin_id)

    async def kill_engine(self, *, pause: float = 0.0) -> None:
        """Kill the engine (SIGKILL); it comes back by itself, after `pause` seconds."""
        await self._engine.kill(pause=pause)

    def kill_plugin(self, plugin_id: str, name: str = "SIGKILL") -> None:
        """Send a signal to a plugin's process by its name; the agent knows nothing of it.

        A plugin that was stopped (SIGSTOP) does not end before the agent's grace, unless it gets SIGCONT.

        Raises:
            UnknownPlugin: No such plugin.
            AgentError: It is not running.
            UsageError: There is no such signal here.
        """
        number = getattr(signal, name, None) if name.startswith("SIG") else None
        if not isinstance(number, signal.Signals):
            raise UsageError(f"no signal {name!r} here; give a name such as SIGKILL")
        process = self._orchestrator.process(plugin_id)
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess as exc:
            raise AgentError(f"{plugin_id} ended a moment ago") from exc

    async def fault(self, fault: Fault) -> int:
        """Put a fault in force and return its number, for `faults.clear`; it ends by itself (docs/faults.md).

        Raises:
            UnknownPlugin: It is about a plugin that is not there.
            AgentError: The port to move to is taken, or the plugin to suspend is not running.
        """
        return await self._inflictor.inflict(fault)

    async def wait_engine(self) -> None:
        """Return when the engine accepts connections."""
        await self._engine.wait_up()

    def effective(self, plugin_id: str) -> dict[str, str]:
        """Return the merged settings of a plugin, or of `KeeperPrivilegeManager`.

        Raises:
            UnknownPlugin: No such plugin.
        """
        return self._storage.effective(plugin_id)

    def values(self, plugin_id: str) -> dict[str, object]:
        """Return the merged settings with the types that they were given with.

        Raises:
            UnknownPlugin: No such plugin.
        """
        return self._storage.values(plugin_id)

    def put(self, plugin_id: str, key: str, value: object) -> bool:
        """Store a setting over the file's value; tell whether the file has one.

        Raises:
            UnknownPlugin: No such plugin.
        """
        in_file = self._storage.put(plugin_id, key, value)
        self._orchestrator.hurry(plugin_id)
        return in_file

    def revert(self, plugin_id: str) -> None:
        """Read a plugin's file again and forget what is stored for it.

        Raises:
            UnknownPlugin: No such plugin.
            ManifestError: Its file is wrong; nothing was changed.
        """
        self._storage.effective(plugin_id)
        if plugin_id != SYSTEM_PLUGIN:
            found = read_file(self._layout.plugins / f"{plugin_id}.json")
            if isinstance(found, Problem):
                raise ManifestError(str(found))
            self._storage.load(found)
        self._storage.revert(plugin_id)

    def revert_all(self) -> None:
        """Revert every plugin.

        Raises:
            ManifestError: A file is wrong; those before it were reverted.
        """
        for plugin_id in self._storage.plugins():
            self.revert(plugin_id)

    def status(self, plugin_id: str) -> dict[str, object]:
        """Return which settings differ from the file, and whether the file changed since it was imported.

        Raises:
            UnknownPlugin: No such plugin.
        """
        file = None if plugin_id == SYSTEM_PLUGIN else self._layout.plugins / f"{plugin_id}.json"
        return self._storage.status(plugin_id, file)

    def layers(self, plugin_id: str) -> dict[str, object]:
        """Return `stored`, `file` (as imported), `fileChanged` since then, and `program`, the command of the launch.

        Raises:
            UnknownPlugin: No such plugin.
        """
        stored, file = self._storage.layers(plugin_id)
        program = None if plugin_id == SYSTEM_PLUGIN else self._orchestrator.command(plugin_id)
        changed = plugin_id != SYSTEM_PLUGIN and self.status(plugin_id)["fileChanged"]
        return {"stored": stored, "file": file, "fileChanged": changed, "program": program}

    def describe(self) -> dict[str, Any]:
        """Return where and what this agent is: root, api_base, broker, engine, engine_pid, like."""
        return {
            "root": str(self.root),
            "api_base": self.api_base,
            "broker": list(self.broker),
            "engine": self.engine,
            "engine_pid": self.engine_pid,
            "like": asdict(self.role.like),
        }
