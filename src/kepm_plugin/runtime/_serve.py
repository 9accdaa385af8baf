"""The life of one plugin: settings, stand-by, lifespan, link, serving, and the phases of stopping."""

import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.abc

from kepm_plugin.contract import SYSTEM_PLUGIN, link_topic
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.errors import InstanceError, KepmError, UnknownPlugin
from kepm_plugin.eventloop import bare_task_group, loop_clock, run_soon_on_loop, shared_wait
from kepm_plugin.link import Link
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Every, Gap, Plugin
from kepm_plugin.records import Redactor
from kepm_plugin.stall import watched
from kepm_plugin.store import Store

from ._host import PluginHost
from ._knobs import KnobControl
from ._schedule import supervise, tick
from ._settings import broker_address, patiently
from ._shipping import LogShipper
from ._snapshot import PluginSettings, call_hook
from ._status import Status
from ._stop import CUT_OFF
from ._surroundings import Outcome, Surroundings
from ._uplink import Reactions, Uplink

log = logging.getLogger("kepm_plugin.runtime")

ORPHAN_DRAIN = 2.0
"""Seconds that an orphan's handlers have to finish: its successor is waiting for the lock."""

CLOSING = 0.3
"""Seconds that each later phase of stopping has at least, when handlers used up the drain deadline."""

FLUSH = 2.0
"""Seconds for sending what is left, when there is time."""

LOOK_AGAIN = 5.0
"""Seconds between two looks for dead letters that a command has put back, and for those that one has purged."""


class Serving:
    """One run of one plugin."""

    def __init__(self, kind: type[Plugin], around: Surroundings) -> None:
        self.declarations = kind.declarations()
        self._kind, self._around = kind, around
        self.plugin = kind()
        self.outbox = Outbox(loop_clock())
        self._redactor = Redactor(self.secrets)
        self.status = Status(
            kind, around.contract, partial(self.outbox.put_soon, first=True), self._report, self._redact
        )
        self._shipper = LogShipper(around.pipe, self.outbox, lambda: self.status.up)
        self.knobs = KnobControl(kind, around, self.outbox, self.status, self._shipper.rouse)
        self.settings = PluginSettings(
            self.plugin,
            self.declarations.settings_type,
            around,
            self.outbox,
            self.status,
            self.knobs,
            self._redact,
        )
        self.host = self.plugin.host = PluginHost(
            self.outbox, around.contract, around.agent, self.settings, run_soon_on_loop(), self.declarations
        )
        self.uplink = Uplink(
            kind,
            around,
            self.outbox,
            self.host,
            self.status,
            Reactions(up=self._link_up, down=self.settings.rest, reconnected=self._reconnected, end=self.end),
        )
        self._ended = anyio.Event()
        self._deadline = 0.0
        self._error: KepmError | None = None
        self._cut_off = False
        self._link_scope, self._flush_scope = anyio.CancelScope(), anyio.CancelScope()
        self._linked = False
        self._opening: anyio.CancelScope | None = None
        self._gap: Gap | None = None
        self._gap_ended = anyio.Event()
        self._store: Store

    def secrets(self) -> frozenset[str]:
        """Return the values that no log may show."""
        return self.settings.secrets()

    def _redact(self, text: str, limit: int) -> str:
        self._redactor.refresh()
        return self._redactor.text(text, limit)

    async def run(self) -> Outcome:
        """Serve until asked to stop, or until there is no sense in going on.

        Raises:
            AgentError: The agent could not be reached, or refused, for the whole start budget.
            SettingsError: A setting is missing or wrong.
            InstanceError: The launcher went away before the plugin served.
            StoreError: The journal cannot be read.
        """
        log.info("plugin.starting", extra={"version": self._kind.version})
        # Before the lock: a copy that the agent does not accept, started by hand perhaps, must not hold it.
        if not await self._unless_stopped(self._read_agent):
            return Outcome(None, False)
        if not self._around.try_lock():
            self.status.change("standby", "another copy of this plugin handles messages")
            if not await self._unless_stopped(self._stand_by) or not await self._unless_stopped(self._read_agent):
                return Outcome(None, False)
            self.status.change("starting")
        # Under the lock: another copy may have been in the middle of writing them.
        if not await self._unless_stopped(self._read_settings):
            return Outcome(None, False)
        # Not before: the copy that handled until now has written to it to the last moment.
        with self._around.open_store(limits=self.knobs.limits) as self._store:
            await self._handle()
        return Outcome(self._error, self._cut_off)

    async def _handle(self) -> None:
        routes = {route.filter: self.host.answered for route in self.declarations.requests}
        link = Link(self.uplink.connect, self.uplink, self.uplink.options(), self.uplink.history)
        if self._kind.echo:
            routes[link_topic(self._kind.id)] = link.echo
        dispatcher = self.host.dispatcher = Dispatcher(
            self.plugin,
            self.declarations.handlers,
            routes,
            self._store,
            self.outbox.answer,
            self._around.contract,
            self.status.trouble,
            self._redact,
            send=self.outbox.put,
            pause=self.host.pause_reading,
        )
        self.knobs.serve(self._store, dispatcher, link)
        await self._live(link, dispatcher)

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

    async def _patiently(self, plugin: str) -> dict[str, str]:
        ask = partial(self._around.agent.settings, plugin)
        return await patiently(ask, self._around.start_budget, self._check_launcher)

    async def _read_settings(self) -> None:
        await self.settings.start(partial(self._patiently, self._kind.id), self._check_launcher)

    async def _read_agent(self) -> None:
        try:
            system = await self._patiently(SYSTEM_PLUGIN)
        except UnknownPlugin as exc:
            log.warning("broker.assumed", extra={"reason": str(exc)})
            system = {}
        self.uplink.place = broker_address(system)
        self.knobs.agent(system)

    def _check_launcher(self) -> None:
        if self._around.orphaned():
            raise InstanceError(
                "the process that launched this plugin is gone and the agent does not accept it; the agent starts "
                "plugins itself, use 'kepm-plugin dev' on a developer's machine"
            )

    async def _stand_by(self) -> None:
        while not self._around.try_lock():
            self._check_launcher()
            self._around.press()
            await anyio.sleep(self._around.lock_retry)

    async def _live(self, link: Link, dispatcher: Dispatcher) -> None:
        self.outbox.open(self._store, self._outbox_trouble, keeping=self._kind.outbox == "disk")
        dispatcher.replay()  # Afterwards: what it gives up is answered at once.
        async with bare_task_group() as outer:
            outer.start_soon(self.outbox.run, name="kepm.outbox")
            outer.start_soon(self._shipper.run, name="kepm.logs")
            outer.start_soon(self._wait_for_stop, name="kepm.stop")
            linked = anyio.Event()
            try:
                await self._within_lifespan(partial(self._work, link, linked, dispatcher, outer))
            finally:
                crash = sys.exc_info()[1]
                if isinstance(crash, Exception):
                    log.critical("plugin.crashed", exc_info=crash)
                    self._around.ending(CLOSING, 1)
                with anyio.move_on_after(max(self._rest(), 0) + FLUSH, shield=True):
                    await self._say_goodbye(linked)
                self._leave_outbox()
            outer.cancel_scope.cancel()

    async def _work(self, link: Link, linked: anyio.Event, dispatcher: Dispatcher, outer: anyio.abc.TaskGroup) -> None:
        async with bare_task_group() as inner:
            lanes = anyio.Event()
            await inner.start(self._lanes, dispatcher, lanes, name="kepm.dispatch")
            await outer.start(self._keep_link, link, linked, name="kepm.link")
            self._start_schedule(inner)
            if self._kind.journal:
                inner.start_soon(self._look_again, dispatcher, name="kepm.replay")
            await self._ended.wait()
            await self._drain(dispatcher, lanes)
            inner.cancel_scope.cancel()

    async def _within_lifespan(self, work: Callable[[], Awaitable[None]]) -> None:
        # Around the whole of it: an author's task group inside must not find a scope of ours on top of its own.
        with anyio.CancelScope() as scope:
            self._opening = scope  # Until it has opened, a request to stop need not wait for it.
            lifespan = self.plugin.lifespan()
            with self.host.opening():
                await watched(lifespan.__aenter__, what=self.plugin.lifespan)
            self._opening = None
            try:
                await work()
            finally:
                scope.deadline, scope.shield = anyio.current_time() + max(self._rest(), CLOSING), True
                # Without the error, if there is one: it is not the author's to swallow.
                await watched(lifespan.__aexit__, None, None, None, what=self.plugin.lifespan)
        if scope.cancelled_caught and self._opening is None:
            log.error("lifespan.cut_off", extra={"reason": "its end took longer than the drain deadline"})

    async def _lanes(self, dispatcher: Dispatcher, ended: anyio.Event, *, task_status: Any) -> None:
        await dispatcher.serve(task_status=task_status)
        ended.set()

    async def _keep_link(self, link: Link, closed: anyio.Event, *, task_status: Any) -> None:
        self._linked = True
        task_status.started()
        try:
            with self._link_scope:
                await link.run()
        except KepmError as exc:  # The budget is spent, or something that trying again does not mend.
            self.end(exc)
        finally:
            self._flush_scope.cancel()  # Nothing more can be sent.
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
            self._around.ending(self._drain_seconds(), CUT_OFF if error is None else error.exit_code)
            if self._opening is not None:
                self._opening.cancel()
            if isinstance(error, InstanceError):
                self._link_scope.cancel()  # A new session would take that of the copy that comes after.

    def _drain_seconds(self) -> float:
        drain = self.knobs.drain
        return min(drain, ORPHAN_DRAIN) if isinstance(self._error, InstanceError) else drain

    def _rest(self) -> float:
        return self._deadline - anyio.current_time() if self._ended.is_set() else self.knobs.drain

    def _start_schedule(self, tasks: anyio.abc.TaskGroup) -> None:
        for one in self.declarations.schedule:
            if isinstance(one, Every):
                tasks.start_soon(tick, self.plugin, one, name=f"kepm.every.{one.name}")
            else:
                tasks.start_soon(supervise, self.plugin, one, self.status, name=f"kepm.background.{one.name}")
        tasks.start_soon(self.status.beat, name="kepm.heartbeat")
        tasks.start_soon(self._tell_gaps, name="kepm.on_reconnect")
        tasks.start_soon(self.knobs.follow, name="kepm.knobs")
        tasks.start_soon(self.settings.watch, name="kepm.settings")

    async def _look_again(self, dispatcher: Dispatcher) -> None:
        while True:
            await anyio.sleep(shared_wait(anyio.current_time(), LOOK_AGAIN))
            dispatcher.look_again()

    async def _drain(self, dispatcher: Dispatcher, lanes: anyio.Event) -> None:
        self.status.change("stopping", "" if self._error is None else str(self._error))
        dispatcher.close()
        with anyio.move_on_after(self._rest()):
            await lanes.wait()
        if not lanes.is_set():
            self._cut_off = True
            log.error("handlers.cut_off", extra={"handlers": dispatcher.busy(), "seconds": self._drain_seconds()})

    async def _say_goodbye(self, linked: anyio.Event) -> None:
        crashed = "" if self._ended.is_set() else "crashed"
        self.status.change("stopped", crashed if self._error is None else str(self._error))
        if self.status.up:
            self._flush_scope.deadline = anyio.current_time() + min(max(self._rest(), CLOSING), FLUSH)
            with self._flush_scope:
                await self._shipper.rest()
                await self.outbox.flushed()
        self._link_scope.cancel()
        if self._linked:
            await linked.wait()

    # --- small parts --------------------------------------------------------------------------------------------------

    def _outbox_trouble(self, reason: str | None) -> None:
        self.status.trouble("outbox", reason)
        if reason is None:
            self._shipper.rouse()

    def _leave_outbox(self) -> None:
        """Leave to the next run what can be kept, and say what cannot: nothing more is sent."""
        self.outbox.detach()
        self._shipper.leave()
        if lost := self.outbox.close():
            self._around.logs.fallback(True)
            log.warning("publications.lost", extra={"count": lost})

    def _reconnected(self, gap: Gap) -> None:
        """Note a gap; those that come while the plugin is still being told of one are told as one."""
        if (before := self._gap) is not None:
            gap = Gap(
                seconds=before.seconds + gap.seconds,
                reason=gap.reason,
                session_present=before.session_present and gap.session_present,
                dropped=before.dropped + gap.dropped,
            )
        self._gap = gap
        self._gap_ended.set()
        self.knobs.reconnected()

    async def _tell_gaps(self) -> None:
        while True:
            await self._gap_ended.wait()
            self._gap_ended = anyio.Event()
            gap, self._gap = self._gap, None
            await call_hook(self.plugin.on_reconnect, gap)

    def _link_up(self) -> None:
        self._shipper.rouse()
        self.settings.publish()
        self.settings.resume()

    def _report(self) -> dict[str, object]:
        counters: dict[str, int] = {}
        if self.host.dispatcher is not None:
            counters = self.host.dispatcher.counters.report() | self._store.report()
        counters |= {"notSent": self.outbox.dropped, "logsDropped": self._around.pipe.dropped}
        counters["stalls"] = self._around.stalls()
        return self.uplink.report() | {"counters": counters}
