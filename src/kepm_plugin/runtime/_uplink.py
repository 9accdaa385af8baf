"""What the link reports, and what comes of it: sending begins and ends, plugin and operator are told."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

import anyio
from msgspec import Struct

from kepm_plugin.contract import SYSTEM_PLUGIN, link_topic
from kepm_plugin.errors import AgentError, InstanceError, KepmError
from kepm_plugin.link import SUSPENDED, Deliver, History, LinkOptions, Session
from kepm_plugin.message import Received
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Gap, Plugin

from ._host import PluginHost
from ._settings import broker_address
from ._status import Status
from ._surroundings import Surroundings

log = logging.getLogger("kepm_plugin.runtime")

ASK = 1.0
"""Seconds for asking the agent, after a failed attempt, where its broker is by now."""


class Reactions(Struct, frozen=True, kw_only=True):
    """What the link's reports set off elsewhere."""

    up: Callable[[], object]
    """The link is up: send what waits, look for what is new."""
    down: Callable[[], object]
    """The link is down."""
    reconnected: Callable[[Gap], object]
    """Tell the plugin."""
    end: Callable[[KepmError], object]
    """Stop serving."""


class Uplink:
    """The link's observer, and what the link needs to know."""

    def __init__(
        self,
        plugin: type[Plugin],
        around: Surroundings,
        outbox: Outbox,
        host: PluginHost,
        status: Status,
        reactions: Reactions,
    ) -> None:
        self._plugin, self._around = plugin, around
        self._outbox, self._host, self._status = outbox, host, status
        self._reactions = reactions
        self.history = History(log)
        self.place = ("", 0)
        """Host and port of the broker."""
        self.proven = False
        """Whether an echo has come back."""
        self.serving = anyio.Event()
        """Set when the subscriptions were confirmed for the first time."""
        self._next_up = anyio.Event()
        self._away = self._rival = ""
        """Why the link is down, and whether that is another client's doing."""

    def options(self) -> LinkOptions:
        """Return how patient the link is, and what it subscribes."""
        return LinkOptions(
            filters=self._host.filters,
            qos=self._plugin.qos,
            echo_topic=link_topic(self._plugin.id) if self._plugin.echo else None,
            budget=self._plugin.link_budget,
        )

    def connect(self, deliver: Deliver) -> AbstractAsyncContextManager[Session]:
        """Connect to where the broker was last known to be."""
        host, port = self.place
        return self._around.open_session(host, port, self._status.will(), deliver)

    def next_up(self) -> anyio.Event:
        """Return an event that is set when the link is up the next time."""
        return self._next_up

    def received(self, batch: Sequence[Received], session: Session) -> None:
        """Hand what was read to the dispatcher."""
        if self._host.dispatcher is not None:
            self._host.dispatcher.receive(batch, session.acknowledge)

    async def up(self, session: Session, gap: Gap | None) -> None:
        """Start sending, and tell the plugin of the gap."""
        if self._host.dispatcher is not None:
            self._host.dispatcher.new_session(session.session_present)
        await self._host.link_up(session)
        dropped = self._outbox.attach(session, anew=gap is not None and gap.reason == SUSPENDED)
        self._status.up = True
        self._around.logs.fallback(False)
        self._status.change("running")
        self._reactions.up()
        self.serving.set()
        self._next_up.set()
        self._next_up = anyio.Event()
        if self._host.dispatcher is not None and self._host.dispatcher.overloaded:
            session.pause_reading()
        if gap is not None:
            self._reactions.reconnected(
                Gap(seconds=gap.seconds, reason=gap.reason, session_present=gap.session_present, dropped=dropped)
            )

    async def down(self, reason: str) -> None:
        """Stop sending; find out whether there is sense in trying again, and where."""
        was_up, self._status.up, self._away = self._status.up, False, reason
        self._host.link_lost(reason)
        self._outbox.detach()
        self._reactions.down()
        self._around.logs.fallback(True)
        self._status.change("disconnected", reason if was_up else self._status.reason or reason)
        if not self._wanted(reason) or was_up:
            return
        # The attempt has failed: a restarted agent may have another port.
        with anyio.move_on_after(ASK), suppress(AgentError):
            place = broker_address(await self._around.agent.settings(SYSTEM_PLUGIN))
            if place != self.place:
                before, self.place = self.place, place
                self.history.note("addressChanged", f"{before[0]}:{before[1]} became {place[0]}:{place[1]}")

    def _wanted(self, reason: str) -> bool:
        """Tell whether there is sense in trying again; an orphan leaves the work to the next copy."""
        if not self._around.orphaned():
            return True
        self._reactions.end(
            InstanceError(
                f"the process that launched this plugin is gone and the link is lost ({reason}); "
                "what is not handled stays in the journal for the next copy"
            )
        )
        return False

    def beat(self, up: bool) -> None:
        """Show that this copy is alive, or look whether it is still wanted."""
        if up:
            self._around.alive()
        else:
            self._wanted(self._rival or self._away)

    def taken_over(self, reason: str | None) -> None:
        """Say that another client uses this plugin's client id, and that it is not fought."""
        self._rival = "" if reason is None else "another client has its client id"
        remedy = "; end that client, or give it a client id of its own; this one connects again after a while"
        self._status.trouble("link", None if reason is None else reason + remedy)

    def proof(self, proven: bool) -> None:
        """Note whether messages come through."""
        self.proven = proven
        if not proven:
            topic = link_topic(self._plugin.id)
            reason = f"the echo on {topic} did not come back; the deployed manifest may lack it, or the broker "
            reason += "takes this client for another plugin: look at the contract's client_id (docs/contract.md)"
            log.warning("link.unproven", extra={"reason": reason})
        self._status.publish()

    def report(self) -> dict[str, object]:
        """Return what Status says of the link."""
        proof = "proven" if self.proven else "unproven"
        return {"link": proof if self._plugin.echo else "not checked", "transitions": self.history.report()}
