"""The plugin's state: logged at every change, published on `<Id>/Status`, repeated as heartbeat, left as last will."""

import logging
import os
import time
from collections.abc import Callable
from typing import Final

import anyio

from kepm_plugin.contract import Contract, State, status_topic
from kepm_plugin.message import Publication, encode_json
from kepm_plugin.plugin import Plugin

log = logging.getLogger("kepm_plugin.runtime")


ENDING: Final = ("stopping", "stopped")

REASON: Final = 2_000
"""Characters of a reason that are told."""


class Status:
    """Keeps the state, publishes it while the link is up and anew when it is up again; a change meanwhile is logged.

    What was published and not acknowledged when the link went is sent again, in order: the newest comes last.
    """

    def __init__(
        self,
        plugin: type[Plugin],
        contract: Contract,
        publish: Callable[[Publication], object],
        report: Callable[[], dict[str, object]],
        redact: Callable[[str, int], str],
    ) -> None:
        self._plugin, self._contract, self._publish, self._report = plugin, contract, publish, report
        self._redact = redact
        self._state: State = "starting"
        self._reason = ""
        self._troubles: dict[str, str] = {}
        self._heartbeat = plugin.heartbeat
        self._paced = anyio.Event()
        self.up = False

    @property
    def enabled(self) -> bool:
        """Whether the plugin uses the topic at all."""
        return self._plugin.heartbeat is not None

    @property
    def state(self) -> State:
        """The state; who runs with troubles is degraded."""
        return "degraded" if self._state == "running" and self._troubles else self._state

    @property
    def reason(self) -> str:
        """Why the state is what it is."""
        return "; ".join(self._troubles.values()) if self.state == "degraded" else self._reason

    def change(self, state: State, reason: str = "") -> None:
        """Log and publish a new state; the same one again is nothing new, and who stops does not run again."""
        if self._state in ENDING and state not in ENDING:
            return
        before = self.state, self.reason
        self._state, self._reason = state, reason
        self._tell(before)

    def trouble(self, source: str, reason: str | None) -> None:
        """Note what one source has to complain of; None: nothing any more."""
        before = self.state, self.reason
        if reason is None:
            self._troubles.pop(source, None)
        else:
            self._troubles[source] = reason
        self._tell(before)

    def _tell(self, before: tuple[State, str]) -> None:
        state, reason = self.state, self.reason
        if (state, reason) == before:
            return
        fields = {"state": state, "before": before[0]} | ({"reason": reason} if reason else {})
        log.log(
            logging.WARNING if state in ("degraded", "disconnected") else logging.INFO, "state.changed", extra=fields
        )
        self.publish()

    def publish(self) -> None:
        """Publish the state, with the counters."""
        if self.enabled and self.up:
            self._publish(self._publication(self.state, self.reason, self._report()))

    def will(self) -> Publication | None:
        """Return what the broker publishes should the process die (MQTT 5.0, section 3.1.2.5)."""
        if not self.enabled:
            return None
        return self._publication("disconnected", "the connection was lost without a goodbye", {})

    def _publication(self, state: State, reason: str, details: dict[str, object]) -> Publication:
        body = self._contract.status(
            state=state,
            reason=self._redact(reason, REASON),
            version=self._plugin.version,
            process=os.getpid(),
            time=time.time(),
            details=details,
        )
        return Publication(status_topic(self._plugin.id), encode_json(body), qos=1, retain=True)

    async def beat(self) -> None:
        """Publish the state again and again."""
        while self._heartbeat is not None:
            self._paced = anyio.Event()
            with anyio.move_on_after(self._heartbeat) as period:
                await self._paced.wait()
            if period.cancelled_caught:
                self.publish()

    def pace(self, seconds: float) -> None:
        """Have so many seconds between two reports from now on; a plugin without a heartbeat stays without."""
        if self.enabled:
            self._heartbeat = seconds
            self._paced.set()
