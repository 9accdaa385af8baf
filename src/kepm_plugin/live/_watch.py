"""When to look at the agent's settings, and whether the agent says that there is nothing new."""

import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import anyio

from kepm_plugin.contract import Contract
from kepm_plugin.errors import AgentError, AgentRefused, BadAgentAnswer, SettingsError, UnknownPlugin

log = logging.getLogger("kepm_plugin.settings")

JITTER: Final = 0.1
"""Part of the interval by which it may be shorter, so that an endpoint's plugins do not all ask at once."""
NO_STATUS: Final = (405, 501)
"""Answers that say, as 404 does, that the agent has no status at all."""


class Watch:
    """Looks again and again, while somebody is there to look at; at once when somebody comes back or is in a hurry."""

    def __init__(
        self, look: Callable[[], Awaitable[object]], interval: Callable[[], float], pressing: Callable[[], bool]
    ) -> None:
        self._look, self._interval, self._pressing = look, interval, pressing
        self._random = Random()  # noqa: S311  jitter, no secret
        self._awake = self._hurry = False
        self._roused = anyio.Event()

    def rest(self) -> None:
        """Stop looking until `resume`: the link is down, and the agent probably too."""
        self._awake = False

    def resume(self) -> None:
        """Look at once, and go on."""
        self._awake = True
        self.hurry()

    def hurry(self) -> None:
        """Look at once."""
        self._hurry = True
        self._roused.set()

    async def run(self) -> None:
        """Look, until cancelled; a look that fails is made again at its time."""
        while True:
            await self._due()
            try:
                await self._look()
            except (AgentError, SettingsError) as exc:  # Whoever has to know was told when it was new.
                log.debug("settings.unread", extra={"reason": str(exc)})

    async def _due(self) -> None:
        due = anyio.current_time() + self._interval() * self._random.uniform(1 - JITTER, 1)
        while True:
            may = self._awake or self._pressing()
            rest = due - anyio.current_time()
            if may and (self._hurry or rest <= 0):
                self._hurry = False
                return
            self._roused = anyio.Event()
            with anyio.move_on_after(rest if may else None):
                await self._roused.wait()


class StatusHash:
    """What the agent's status says to stand for all settings, as long as that can be relied on.

    It must be read before the values that it is taken to stand for: what changes in between is then seen next time.
    """

    def __init__(self, ask: Callable[[], Awaitable[dict[str, object]]], contract: Contract) -> None:
        self._ask, self._contract = ask, contract
        self._offered = self._trusted = True
        self.known: str | None = None
        """That of the values that were seen last; None where they have none."""

    def again(self) -> None:
        """Try anew what the agent did not offer: it may have been replaced."""
        self._offered, self.known = True, None

    async def read(self) -> str | None:
        """Return the hash of now; None where there is none.

        Raises:
            AgentUnreachable: Nothing answered.
        """
        if not (self._offered and self._trusted):
            return None
        try:
            found = self._contract.status_hash(await self._ask())
            reason = "" if found is not None else "the status has none of status_hash_fields of the contract"
        except (UnknownPlugin, AgentRefused) as exc:
            found, reason = None, str(exc)
        except BadAgentAnswer as exc:
            found, reason = None, str(exc) if exc.status in NO_STATUS else ""
        if reason:
            self._offered = False
            log.info("settings.without_hash", extra={"reason": f"{reason}; all settings are read each time"})
        return found

    async def check(self) -> str | None:
        """Return the hash of now, after values were seen that differ; the same one as before is never trusted again."""
        found = await self.read()
        if found is None or found != self.known:
            return found
        self._trusted = False
        log.warning(
            "settings.hash_not_trusted",
            extra={
                "reason": "settings have changed and the hash in the status has not; all settings are read each time. "
                "Correct status_hash_fields of the contract"
            },
        )
        return None
