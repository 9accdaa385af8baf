"""The life of one plugin: settings, stand-by, lifespan, link, serving, and the phases of stopping."""

import logging
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc

from kepm_plugin.contract import LOGGER_TOPIC, SYSTEM_PLUGIN, Contract, link_topic
from kepm_plugin.dispatch import Dispatcher, Failure, guarded
from kepm_plugin.errors import AgentError, InstanceError, KepmError, LinkLost, SettingsError, StoreError, UnknownPlugin
from kepm_plugin.eventloop import bare_task_group, loop_clock, run_soon_on_loop
from kepm_plugin.link import Deliver, Link, LinkOptions, Session
from kepm_plugin.logs import LogControl, LogPipe
from kepm_plugin.message import Publication, Received
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Every, Gap, Plugin
from kepm_plugin.settings import Change, secrets_of
from kepm_plugin.store import Store

from ._host import PluginHost
from ._schedule import supervise, tick
from ._settings import Agent, LiveSettings, broker_address, patiently
from ._status import Status

log = logging.getLogger("kepm_plugin.runtime")

OpenSession = Callable[[str, int, Publication | None, Deliver], AbstractAsyncContextManager[Session]]
"""Connects to the broker at host and port, with a last will."""

ORPHAN_DRAIN = 2.0
"""Seconds that an orphan's handlers have to finish: its successor is waiting for the lock."""

CLOSING = 0.3
"""Seconds that each later phase of stopping has at least, when handlers used up the drain deadline."""

FLUSH = 2.0
"""Seconds for sending what is left, when there is time."""

RECORDS = 100
"""Log records that are moved to the outbox at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plugin runs in; the real thing, or a test's."""

    agent: Agent
    open_session: OpenSession
    store: Store
    pipe: LogPipe
    logs: LogControl
    contract: Contract
    stop: anyio.Event
    """Set when the process is asked to stop."""
    try_lock: Callable[[], bool]
    """Try to become the one copy that handles."""
    orphaned: Callable[[], bool]
    """Whether the process that launched us is gone."""
    start_budget: float = 60.0
    """Seconds for which refusals of the agent are not final."""
    lock_retry: float = 0.05
    """Seconds between two tries of a copy that stands by."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    error: KepmError | None
    cut_off: bool
    """Whether handlers had to be cut off."""


class Serving:
    """One run of one plugin."""

    def __init__(self, kind: type[Plugin], around: Surroundings) -> None:
        self.declarations = kind.declarations()
        self._kind, self._around = kind, around
        self.plugin = kind()
        self.settings = LiveSettings(around.agent, kind.id, self.declarations.settings_type)
        self.outbox = Outbox(loop_clock())
        self.status = Status(kind, around.contract, self.outbox.put_soon, self._report)
        self.host = PluginHost(
            self.outbox,
            around.contract,
            around.agent,
            self.settings,
            self.refresh_settings,
            run_soon_on_loop(),
            self.declarations,
        )
        self.plugin.host = self.host
        self.dispatcher: Dispatcher | None = None
        self.serving = anyio.Event()
        """Set when the subscriptions were confirmed for the first time."""
        self._waiting_for_link: list[anyio.Event] = []
        self._records = anyio.Event()
        self._ended = anyio.Event()
        self._deadline = 0.0
        self._error: KepmError | None = None
        self._cut_off = False
        self._proven: bool | None = None
        self._place = ("", 0)
        self._link_scope = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup | None = None

    def next_link(self) -> anyio.Event:
        """Return an event that is set when the link is up the next time."""
        event = anyio.Event()
        self._waiting_for_link.append(event)
        return event

    def secrets(self) -> frozenset[str]:
        """Return the values that no log may show."""
        return frozenset() if self.settings.current is None else secrets_of(self.settings.current)

    async def run(self) -> Outcome:
        """Serve until asked to stop, or until there is no sense in going on.

        Raises:
            AgentError: The agent could not be reached, or refused, for the whole start budget.
            SettingsError: A setting is missing or wrong.
            InstanceError: The launcher went away before the plugin served.
        """
        log.info("plugin.starting", extra={"version": self._kind.version})
        if not await self._unless_stopped(self._read_settings):
            return Outcome(None, False)
        if not self._around.try_lock():
            self.status.change("standby", "another copy of this plugin handles messages")
            if not await self._unless_stopped(self._stand_by) or not await self._unless_stopped(self._read_settings):
                return Outcome(None, False)
        routes = {route.filter: self.host.answered for route in self.declarations.requests}
        link = Link(self._connect, self, self._link_options())
        if self._kind.echo:
            routes[link_topic(self._kind.id)] = link.echo
        self.dispatcher = self.host.dispatcher = Dispatcher(
            self.plugin,
            self.declarations.handlers,
            routes,
            self._around.store,
            self._answer,
            self._around.contract,
            self.status.trouble,
        )
        await self._live(link, self.dispatcher)
        return Outcome(self._error, self._cut_off)

    async def _unless_stopped(self, step: Callable[[], Any]) -> bool:
        """Run a step that may take long; False when the process was asked to stop meanwhile."""
        done = False

        async def stopped() -> None:
            await self._around.stop.wait()
            tasks.cancel_scope.cancel()

        async with bare_task_group() as tasks:
            tasks.start_soon(stopped, name="kepm.stop")
            await step()
            done = True
            tasks.cancel_scope.cancel()
        return done

    async def _read_settings(self) -> None:
        async def own() -> dict[str, str]:
            return await self._around.agent.settings(self._kind.id)

        async def system() -> dict[str, str]:
            try:
                return await self._around.agent.settings(SYSTEM_PLUGIN)
            except UnknownPlugin as exc:
                log.warning("broker.assumed", extra={"reason": str(exc)})
                return {}

        self.settings.take(await patiently(own, self._around.start_budget, self._check_launcher))
        self.plugin.settings = self.settings.current
        self._place = broker_address(await patiently(system, self._around.start_budget, self._check_launcher))

    def _check_launcher(self) -> None:
        if self._around.orphaned():
            raise InstanceError(
                "the process that launched this plugin is gone and the agent does not accept it; the agent starts "
                "plugins itself, use 'kepm-plugin dev' on a developer's machine"
            )

    async def _stand_by(self) -> None:
        while not self._around.try_lock():
            self._check_launcher()
            await anyio.sleep(self._around.lock_retry)

    async def _live(self, link: Link, dispatcher: Dispatcher) -> None:
        dispatcher.replay()
        for number, publication in self._around.store.kept():
            self._answer(publication, number)
        async with bare_task_group() as outer:
            self._tasks = outer
            outer.start_soon(self._ship_logs, name="kepm.logs")
            linked: anyio.Event | None = None
            try:
                async with self._lifespan(), bare_task_group() as inner:
                    lanes = anyio.Event()
                    await inner.start(self._lanes, dispatcher, lanes, name="kepm.dispatch")
                    linked = await outer.start(self._keep_link, link, name="kepm.link")
                    self._start_schedule(inner)
                    inner.start_soon(self._wait_for_stop, name="kepm.stop")
                    await self._ended.wait()
                    await self._drain(dispatcher, lanes)
                    inner.cancel_scope.cancel()
            finally:
                crash = sys.exc_info()[1]
                if isinstance(crash, Exception):
                    log.critical("plugin.crashed", exc_info=crash)
                with anyio.move_on_after(max(self._rest(), 0) + FLUSH, shield=True):
                    await self._say_goodbye(linked)
            outer.cancel_scope.cancel()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        lifespan = self.plugin.lifespan()
        await lifespan.__aenter__()
        try:
            yield
        finally:
            with anyio.move_on_after(max(self._rest(), CLOSING), shield=True) as scope:
                await lifespan.__aexit__(None, None, None)
            if scope.cancelled_caught:
                log.error("lifespan.cut_off", extra={"reason": "its end took longer than the drain deadline"})

    async def _lanes(self, dispatcher: Dispatcher, ended: anyio.Event, *, task_status: Any) -> None:
        await dispatcher.serve(task_status=task_status)
        ended.set()

    async def _keep_link(self, link: Link, *, task_status: Any) -> None:
        closed = anyio.Event()
        task_status.started(closed)
        with self._link_scope:
            try:
                await link.run()
            except LinkLost as exc:
                self.end(exc)
        closed.set()

    async def _wait_for_stop(self) -> None:
        await self._around.stop.wait()
        self.end(None)

    def end(self, error: KepmError | None) -> None:
        """Begin to stop; the first reason counts."""
        if not self._ended.is_set():
            self._error = error
            self._deadline = anyio.current_time() + self._drain_seconds()
            self._ended.set()

    def _drain_seconds(self) -> float:
        return min(self._kind.drain, ORPHAN_DRAIN) if isinstance(self._error, InstanceError) else self._kind.drain

    def _rest(self) -> float:
        return self._deadline - anyio.current_time() if self._ended.is_set() else self._kind.drain

    def _start_schedule(self, tasks: anyio.abc.TaskGroup) -> None:
        for one in self.declarations.schedule:
            if isinstance(one, Every):
                tasks.start_soon(tick, self.plugin, one, name=f"kepm.every.{one.name}")
            else:
                tasks.start_soon(supervise, self.plugin, one, self.status, name=f"kepm.background.{one.name}")
        tasks.start_soon(self.status.beat, name="kepm.heartbeat")
        tasks.start_soon(
            self.settings.watch,
            self._kind.settings_interval,
            self._settings_changed,
            self._settings_refused,
            lambda: self.status.up,
            name="kepm.settings",
        )

    async def _drain(self, dispatcher: Dispatcher, lanes: anyio.Event) -> None:
        self.status.change("stopping", "" if self._error is None else str(self._error))
        dispatcher.close()
        with anyio.move_on_after(self._rest()):
            await lanes.wait()
        if not lanes.is_set():
            self._cut_off = True
            log.error("handlers.cut_off", extra={"handlers": dispatcher.busy(), "seconds": self._drain_seconds()})

    async def _say_goodbye(self, linked: anyio.Event | None) -> None:
        crashed = "" if self._ended.is_set() else "crashed"
        self.status.change("stopped", crashed if self._error is None else str(self._error))
        if self.status.up:
            with anyio.move_on_after(min(max(self._rest(), CLOSING), FLUSH)):
                self._move_records()
                await self.outbox.flushed()
        self._link_scope.cancel()
        if linked is not None:
            await linked.wait()

    # --- what the link reports ------------------------------------------------------------------------------------

    def received(self, batch: Sequence[Received], session: Session) -> None:
        """Hand what was read to the dispatcher."""
        if self.dispatcher is not None:
            self.dispatcher.receive(batch, session.acknowledge)

    async def up(self, session: Session, gap: Gap | None) -> None:
        """Start sending, and tell the plugin of the gap."""
        self.host.session = session
        dropped = self.outbox.attach(session)
        self.status.up = True
        self._around.logs.fallback(False)
        log.info("link.up", extra={"mqtt": session.version, "sessionPresent": session.session_present})
        self._rouse()
        for event in self._waiting_for_link:
            event.set()
        self._waiting_for_link.clear()
        if not self._ended.is_set():
            self.status.change("running")
        self.serving.set()
        if gap is not None and self._tasks is not None:
            told = Gap(seconds=gap.seconds, reason=gap.reason, session_present=gap.session_present, dropped=dropped)
            self._tasks.start_soon(self._call, self.plugin.on_reconnect, told, name="kepm.on_reconnect")

    async def down(self, reason: str) -> None:
        """Stop sending; find out whether there is sense in trying again, and where."""
        was_up, self.status.up = self.status.up, False
        self.host.link_lost(reason)
        self.outbox.detach()
        self._around.logs.fallback(True)
        if not self._ended.is_set():
            self.status.change("disconnected", reason if was_up else self.status.reason or reason)
        if self._around.orphaned():
            self.end(
                InstanceError(
                    f"the process that launched this plugin is gone and the link is lost ({reason}); "
                    "what is not handled stays in the journal for the next copy"
                )
            )
            return
        # A restarted agent may have another port.
        with anyio.move_on_after(1), suppress(AgentError):
            self._place = broker_address(await self._around.agent.settings(SYSTEM_PLUGIN))

    def proof(self, proven: bool) -> None:
        """Note whether messages come through."""
        self._proven = proven
        if not proven:
            topic = link_topic(self._kind.id)
            reason = f"the echo on {topic} did not come back; the deployed manifest may lack it"
            log.warning("link.unproven", extra={"reason": reason})
        self.status.publish()

    # --- small parts ------------------------------------------------------------------------------------------------

    def _connect(self, deliver: Deliver) -> AbstractAsyncContextManager[Session]:
        host, port = self._place
        return self._around.open_session(host, port, self.status.will(), deliver)

    def _link_options(self) -> LinkOptions:
        return LinkOptions(
            filters=self.host.filters,
            qos=self._kind.qos,
            echo_topic=link_topic(self._kind.id) if self._kind.echo else None,
            budget=self._kind.link_budget,
        )

    def _answer(self, publication: Publication, kept: int | None) -> None:
        """Send an answer; what is kept on disk is forgotten there once the broker has it."""
        if kept is None:
            self.outbox.put_soon(publication)
        else:
            self.outbox.put_soon(publication, lambda: self._sent(kept), must=True)

    def _sent(self, kept: int) -> None:
        try:
            self._around.store.sent([kept])
        except StoreError as exc:
            log.error("answer.kept", extra={"reason": str(exc)})

    async def _settings_changed(self, change: Change[Any]) -> None:
        self.plugin.settings = change.new
        log.info("settings.changed", extra={"names": sorted(change.names)})
        await self._call(self.plugin.on_settings_changed, change)
        self.status.trouble("settings", None)

    def _settings_refused(self, error: SettingsError) -> None:
        log.error("settings.refused", extra={"reason": str(error)})
        self.status.trouble("settings", f"the last good settings stay in force: {error}")

    async def refresh_settings(self) -> None:
        """Ask the agent for the settings now, and take them.

        Raises:
            SettingsError: They break a rule; the last good ones stay.
            AgentError: The agent refused or could not be reached.
        """
        change, error = await self.settings.refresh()
        if error is not None:
            raise error
        if change is not None:
            await self._settings_changed(change)

    async def _call(self, function: Callable[..., Any], argument: object) -> None:
        outcome = await guarded(function, argument)
        if isinstance(outcome, Failure):
            log.error("hook.failed", exc_info=outcome.error, extra={"method": function.__name__})

    async def _ship_logs(self) -> None:
        run_soon = run_soon_on_loop()
        self._around.pipe.wake(lambda: run_soon(self._rouse))
        while True:
            if self.status.up and self._move_records():
                await self.outbox.flushed()  # Records never crowd out answers.
            else:
                self._records = anyio.Event()
                await self._records.wait()

    def _rouse(self) -> None:
        self._records.set()

    def _move_records(self) -> int:
        records = self._around.pipe.take(RECORDS)
        for record in records:
            self.outbox.put_soon(Publication(LOGGER_TOPIC, record))
        return len(records)

    def _report(self) -> dict[str, object]:
        link = {None: "unproven", False: "unproven", True: "proven"}[self._proven] if self._kind.echo else "not checked"
        counters = self.dispatcher.counters.report() if self.dispatcher is not None else {}
        return {
            "link": link,
            "counters": counters | {"notSent": self.outbox.dropped, "logsDropped": self._around.pipe.dropped},
        }
