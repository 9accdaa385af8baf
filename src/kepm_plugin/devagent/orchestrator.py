"""Plugins as processes: launched by priority, watched, started again, stopped (kepm-facts, section 3)."""

import asyncio
import os
import shlex
import signal
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

import anyio
import psutil
from anyio.abc import TaskGroup

from kepm_plugin.contract import API_BASE_TOKEN
from kepm_plugin.devagent.child import KILL_WITHIN, Child, spawn
from kepm_plugin.devagent.comeback import Comeback
from kepm_plugin.devagent.guarding import Guard
from kepm_plugin.devagent.jobs import task_that_runs
from kepm_plugin.devagent.layout import Layout
from kepm_plugin.devagent.manifests import Manifest, find_executable, platform_name, split_arguments
from kepm_plugin.devagent.options import DevOptions
from kepm_plugin.devagent.registry import Registry
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import EXIT_CODES, AgentError, SettingsError, UnknownPlugin

Status = Literal["Starting", "Healthy", "Stopping", "Stopped", "Failed"]
"""What the agent calls the state of a plugin (Health & Status); `Stopped` is assumed."""

SETTLE: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginState:
    """One plugin as it stands now; `started_at` is in seconds since the epoch."""

    id: str
    name: str
    status: Status
    pid: int | None
    started_at: float | None
    launches: int
    exit_code: int | None


@dataclass(slots=True)
class Entry:
    """What the orchestrator knows of a plugin. `wanted`: it was launched, and nobody stopped it."""

    manifest: Manifest
    comeback: Comeback
    status: Status = "Stopped"
    child: Child | None = None
    wanted: bool = False
    launches: int = 0
    started_at: float | None = None
    since: float = 0.0
    exit_code: int | None = None
    last_ending: str | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runs(self) -> bool:
        """Whether its process is alive."""
        return self.child is not None and self.child.exit_code is None


class Orchestrator:
    """Starts, watches and stops plugins."""

    def __init__(
        self, layout: Layout, options: DevOptions, api_base: str, registry: Registry, guard: Guard, terminal: Terminal
    ) -> None:
        self._layout, self._options, self._api_base = layout, options, api_base
        self._registry, self._guard, self._terminal = registry, guard, terminal
        self._entries: dict[str, Entry] = {}
        self._tasks: TaskGroup | None = None

    def load(self, manifests: Iterable[Manifest]) -> None:
        """Take manifests in; of a known plugin the new one holds from its next start on."""
        for manifest in manifests:
            if manifest.id in self._entries:
                self._entries[manifest.id].manifest = manifest
            else:
                self._entries[manifest.id] = Entry(manifest, Comeback(self._options.checks[1]))

    def manifests(self) -> dict[str, Manifest]:
        """Return what is loaded, by id."""
        return {plugin_id: entry.manifest for plugin_id, entry in self._entries.items()}

    def entry(self, plugin_id: str) -> Entry:
        """Return what is known of a plugin.

        Raises:
            UnknownPlugin: No such file was loaded.
        """
        if plugin_id not in self._entries:
            known = ", ".join(self._entries) or "none"
            meant = next((f"; {one} is meant?" for one in self._entries if one.lower() == plugin_id.lower()), "")
            raise UnknownPlugin(f"no plugin {plugin_id!r} in {self._layout.plugins}; there are: {known}{meant}")
        return self._entries[plugin_id]

    def last_ending(self, plugin_id: str) -> str:
        """Return what the last process of a plugin ended with, in words; empty where none has ended."""
        last = self._entries[plugin_id].last_ending
        return f"its process last ended with {last}" if last else ""

    def process(self, plugin_id: str) -> psutil.Process:
        """Return the process of a plugin.

        Raises:
            UnknownPlugin: No such file was loaded.
            AgentError: It is not running.
        """
        entry = self.entry(plugin_id)
        if entry.child is None or not entry.runs or entry.child.system is None:
            raise AgentError(f"{plugin_id} is not running ({entry.status}); start it first")
        return entry.child.system

    def states(self) -> dict[str, PluginState]:
        """Return all plugins as they stand now."""
        return {
            plugin_id: PluginState(
                id=plugin_id,
                name=entry.manifest.name,
                status=entry.status,
                pid=entry.child.pid if entry.child is not None and entry.runs else None,
                started_at=entry.started_at,
                launches=entry.launches,
                exit_code=entry.exit_code,
            )
            for plugin_id, entry in self._entries.items()
        }

    async def launch_all(self) -> None:
        """Launch what starts with the agent, lowest `startupPriority` first; a failure is said, the others go on."""
        for entry in sorted(
            self._entries.values(), key=lambda entry: (entry.manifest.startup_priority, entry.manifest.id)
        ):
            if not entry.manifest.runs_here(platform_name()):
                platforms = ", ".join(entry.manifest.platforms)
                self._terminal.warn(f"{entry.manifest.id} is skipped: it is for {platforms} only")
            elif not entry.manifest.auto_start:
                self._terminal.agent(f"{entry.manifest.id} is registered and not launched: autoStart is false")
            else:
                try:
                    await self.start(entry.manifest.id)
                except AgentError as exc:
                    self._terminal.error(str(exc))

    async def start(self, plugin_id: str) -> None:
        """Launch a plugin; nothing where it runs already.

        Raises:
            UnknownPlugin: No such file was loaded.
            AgentError: It cannot be launched.
        """
        entry = self.entry(plugin_id)
        entry.comeback.reset()
        await self._start(entry)

    def hurry(self, plugin_id: str) -> None:
        """Launch a plugin at the next check, where it waits for it: what made it end may be gone."""
        if plugin_id in self._entries:
            self._entries[plugin_id].comeback.reset()

    async def _start(self, entry: Entry) -> None:
        async with entry.turn:
            if not entry.runs:
                await self._launch(entry)

    async def stop(self, plugin_id: str) -> None:
        """Stop a plugin: SIGTERM, the grace, SIGKILL. It is not started again by monitoring.

        Raises:
            UnknownPlugin: No such file was loaded.
        """
        entry = self.entry(plugin_id)
        entry.wanted = False
        async with entry.turn:
            await self._stop(entry)

    async def restart(self, plugin_id: str) -> None:
        """Stop a plugin if it runs, and launch it.

        Raises:
            UnknownPlugin: No such file was loaded.
            AgentError: It cannot be launched.
        """
        entry = self.entry(plugin_id)
        async with entry.turn:
            entry.wanted = False
            entry.comeback.reset()
            await self._stop(entry)
            await self._launch(entry)

    def command(self, plugin_id: str) -> list[str] | None:
        """Return the command that launches a plugin; None where there is no such program.

        Raises:
            UnknownPlugin: No such file was loaded.
        """
        manifest = self.entry(plugin_id).manifest
        program = find_executable(manifest, self._layout.root, self._layout.plugins)
        return None if isinstance(program, str) else [str(program), *self._arguments(manifest)]

    def _arguments(self, manifest: Manifest) -> list[str]:
        return [part.replace(API_BASE_TOKEN, self._api_base) for part in split_arguments(manifest.arguments)]

    async def _launch(self, entry: Entry) -> None:
        manifest = entry.manifest
        program = find_executable(manifest, self._layout.root, self._layout.plugins)
        entry.status = "Failed"
        if isinstance(program, str):
            raise AgentError(f"{manifest.id} cannot be launched: {program}")
        if not os.access(program, os.X_OK):
            raise AgentError(f"{manifest.id} cannot be launched: {program} is not executable; chmod +x it")
        if task := task_that_runs(program, self._layout.root):
            raise AgentError(
                f"{manifest.id} cannot be launched: {program} is also run by {task}; one program is a plugin's or a "
                "job's, give each its own copy"
            )
        if self._tasks is None:
            raise AgentError(f"{manifest.id} cannot be launched: the agent is stopping")
        arguments = self._arguments(manifest)
        entry.status = "Starting"
        async with self._registry.launching:
            try:
                child = await spawn(program, arguments, self._layout.root, partial(self._terminal.line, manifest.id))
            except OSError as exc:
                entry.status = "Failed"
                raise AgentError(f"{manifest.id} cannot be launched: {program}: {exc.strerror}") from exc
            self._guard.started("plugin", child.pid)
            self._registry.add(manifest.id, child.pid)
        entry.child, entry.wanted, entry.gone = child, True, asyncio.Event()
        entry.launches += 1
        entry.started_at, entry.exit_code, entry.status = time.time(), None, "Healthy"
        entry.since = time.monotonic()
        self._terminal.agent(f"launched {manifest.id}: process {child.pid}, {program.name}")
        self._tasks.start_soon(self._attend, entry, child, name=f"orchestrator.{manifest.id}")

    async def _attend(self, entry: Entry, child: Child) -> None:
        code = await child.attend()
        self._registry.remove(child.pid)
        entry.exit_code, entry.last_ending = code, ending(code)
        entry.status = "Failed" if entry.wanted else "Stopped"
        again = ""
        if entry.wanted:
            again = f"; {self._comes_back(entry)}" if _revived(entry.manifest) else f"; {_why_not(entry.manifest)}"
        how = f"ended with {ending(code)}"
        if code == -signal.SIGTERM and not entry.wanted:
            how = "was stopped (SIGTERM) before it served"  # from then on it would have ended with a code
        self._terminal.line(entry.manifest.id, f"process {child.pid} {how}{again}", "yellow" if entry.wanted else "")
        if code == SettingsError.exit_code:
            self._terminal.warn(
                f"set what {entry.manifest.id} lacks, or what breaks a rule: kepm-plugin settings set "
                f"{entry.manifest.id} KEY VALUE --root {shlex.quote(str(self._layout.root))}"
            )
        entry.gone.set()

    @staticmethod
    def _comes_back(entry: Entry) -> str:
        interval = entry.comeback.interval
        pause = entry.comeback.ended(time.monotonic() - entry.since)
        return f"it is started again {'at the next check' if pause <= interval else f'in about {pause:g} s'}"

    async def _stop(self, entry: Entry) -> None:
        child = entry.child
        if child is None:
            return
        if entry.runs:
            entry.status = "Stopping"
        if not await child.stop(self._options.stop_grace):
            self._terminal.warn(
                f"{entry.manifest.id} did not end within {self._options.stop_grace:g} s of SIGTERM and was killed"
            )
        with anyio.move_on_after(SETTLE):
            await entry.gone.wait()
        self._guard.ended(child.pid)
        entry.child = None

    async def monitor(self) -> None:
        """Check all plugins from time to time, and launch again what ended by itself."""
        first, interval = self._options.checks
        await anyio.sleep(first)
        while True:
            for entry in list(self._entries.values()):
                down = entry.wanted and not entry.runs and entry.gone.is_set()
                if down and _revived(entry.manifest) and not entry.turn.locked() and entry.comeback.due():
                    try:
                        await self._start(entry)
                    except AgentError as exc:
                        entry.wanted = False
                        self._terminal.error(f"{exc}; it is not tried again")
            await anyio.sleep(interval)

    async def stop_all(self) -> None:
        """Stop every plugin, all at the same time."""
        async with anyio.create_task_group() as stopping:
            for plugin_id in self._entries:
                stopping.start_soon(self.stop, plugin_id, name=f"stop {plugin_id}")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Watch plugins for the time of the block, and stop them all at its end."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self.monitor, name="orchestrator.monitor")
            try:
                yield
            finally:
                self._tasks = None
                with anyio.move_on_after(self._options.stop_grace + KILL_WITHIN + SETTLE, shield=True):
                    await self.stop_all()
                tasks.cancel_scope.cancel()


def ending(code: int) -> str:
    """Return what an exit code, negative for a signal, means."""
    return f"signal {-code}" if code < 0 else f"code {code}, {EXIT_CODES.get(code, 'of its own')}"


def _revived(manifest: Manifest) -> bool:
    return manifest.requires_monitoring and manifest.auto_restart


def _why_not(manifest: Manifest) -> str:
    field_name = "autoRestart" if manifest.requires_monitoring else "requiresMonitoring"
    return f"it is not started again: {field_name} is false"
