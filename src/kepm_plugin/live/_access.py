"""The agent's values of one plugin, as the rest of the package reads and writes them."""

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from kepm_plugin.errors import AgentError, AgentRefused, BadAgentAnswer, UnknownPlugin
from kepm_plugin.settings import Scalar

from ._reading import Reading
from ._record import Record

log = logging.getLogger("kepm_plugin.settings")

TRIES: Final = 5
"""Times that something is put right before somebody else's turn."""


class Agent(Protocol):
    """What is needed of the agent's HTTPS API."""

    async def settings(self, plugin: str) -> dict[str, str]:
        """Return a plugin's merged settings."""
        ...

    async def setting(self, plugin: str, key: str) -> str:
        """Return one of them."""
        ...

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        """Write one setting."""
        ...

    async def revert(self, plugin: str) -> None:
        """Go back to the plugin's file."""
        ...

    async def status(self, plugin: str) -> dict[str, object]:
        """Return what the agent says about changes of a plugin's settings."""
        ...


class Access:
    """Reads and writes. A write whose end nobody knows may arrive later, after a timeout or even a restart: each is
    on record until it is known what became of it, and what arrives late is put right before anybody sees it.
    """

    def __init__(self, agent: Agent, plugin_id: str, reading: Reading, record: Record) -> None:
        self._agent, self._plugin_id = agent, plugin_id
        self._reading, self._record = reading, record
        self._texts: Mapping[str, str] = {}

    async def values(self) -> dict[str, str]:
        """Return all texts as they are.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        self._texts = await self._agent.settings(self._plugin_id)
        return dict(self._texts)

    async def steady(self, meant: Mapping[str, Scalar]) -> dict[str, str]:
        """Return all texts, without late writes of our own: those were replaced by what is `meant`.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        for _ in range(TRIES):
            values = await self.values()
            late = {key: value for key, value in meant.items() if self._arrived_late(values, key, value)}
            if not late:
                return values
            log.warning("settings.late_write", extra={"keys": list(late)})
            await self.put(late)
        raise AgentError("writes of this plugin that were given up keep arriving at the agent; it is tried again")

    def _arrived_late(self, values: Mapping[str, str], key: str, meant: Scalar) -> bool:
        now = self._reading.now(values, key)
        return now != meant and self._record.late(key, now)

    async def put(self, wanted: Mapping[str, Scalar]) -> None:
        """Write keys one after the other, each on record before it is sent.

        Raises:
            AgentError: The agent refused or could not be reached; the rest was not sent.
        """
        for key, value in wanted.items():
            write = self._record.expect(key, value)
            try:
                await self._put(key, value)
            except AgentError as exc:
                if _is_final(exc):
                    self._record.forget(write)
                    raise
                # Once more, as the same value twice does no harm. The first one stays on record: it may still arrive.
                await self._put(key, value)
            else:
                self._record.forget(write)

    async def _put(self, key: str, value: Scalar) -> None:
        for spelling in self._reading.spellings(self._texts, key):
            await self._agent.put_setting(self._plugin_id, spelling, value)

    async def reverted(self) -> dict[str, str]:
        """Have the agent go back to the plugin's file; return all texts.

        What looks like a late write then is reverted once more; what is there even so, the file has.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        values: dict[str, str] = {}
        for _ in range(2):
            await self._agent.revert(self._plugin_id)
            values = await self.values()
            if not any(self._record.late(key, self._reading.now(values, key)) for key in self._reading.keys):
                break
        return values


def _is_final(error: AgentError) -> bool:
    """Tell whether a write was refused, and will not arrive. What ended in the middle of the agent's work (5xx) may."""
    if isinstance(error, BadAgentAnswer):
        return (error.status or 500) < 500
    return isinstance(error, AgentRefused | UnknownPlugin)
