"""The settings of the running plugin: read at start, watched, written, reverted."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from random import Random
from traceback import extract_tb
from typing import Any, Final, Protocol

import anyio

from kepm_plugin.contract import (
    BROKER_HOST_KEY,
    BROKER_PORT_KEY,
    DEFAULT_BROKER_HOST,
    DEFAULT_BROKER_PORT,
    SYSTEM_PLUGIN,
)
from kepm_plugin.dispatch import Failure, attempted
from kepm_plugin.errors import AgentError, AgentRefused, AgentUnreachable, BadAgentAnswer, SettingsError
from kepm_plugin.link import delays
from kepm_plugin.settings import Change, Settings, difference, flat, leaves_of, secrets_of, standing_aliases

log = logging.getLogger("kepm_plugin.runtime")

SECRETS: Final = 1_000
"""Secret texts of earlier snapshots that are still masked: what was read before a change may be logged after it."""


class Agent(Protocol):
    """What the runtime needs of the agent's HTTPS API."""

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


async def patiently(
    get: Callable[[], Awaitable[dict[str, str]]], budget: float, check: Callable[[], None]
) -> dict[str, str]:
    """Ask the agent until it answers: right after the start it may not have registered this process (HTTP Reference).

    Args:
        get: What to ask.
        budget: Seconds until the last refusal is final.
        check: Called before each further try; raises when there is no sense in waiting.

    Raises:
        AgentError: The last refusal, or at once one that waiting does not mend.
    """
    deadline = anyio.current_time() + budget
    for wait in delays(0.1, 2.0):
        try:
            return await get()
        except (AgentRefused, AgentUnreachable) as exc:
            if anyio.current_time() + wait > deadline:
                raise
            log.info("agent.waiting", extra={"reason": str(exc)})
        check()
        await anyio.sleep(wait)
    raise AssertionError("unreachable: delays() does not end")


def broker_address(values: Mapping[str, str]) -> tuple[str, int]:
    """Return the broker's host and port from the agent's own settings.

    Raises:
        BadAgentAnswer: The port is no port.
    """
    host = values.get(BROKER_HOST_KEY) or DEFAULT_BROKER_HOST
    text = values.get(BROKER_PORT_KEY) or str(DEFAULT_BROKER_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise BadAgentAnswer(f"the agent's setting {BROKER_PORT_KEY} is {text!r}; it must be a port from 1 to 65535")
    return host, int(text)


def _merged(first: Change[Any] | None, second: Change[Any]) -> Change[Any] | None:
    """Return one change for two; None where the second takes the first back."""
    if first is None:
        return second
    names = difference(first.old, second.new)
    return Change(old=first.old, new=second.new, names=names) if names else None


class LiveSettings:
    """The current snapshot of one plugin, and the ways to change it.

    Args:
        agent: Where the values are.
        plugin_id: Whose they are.
        kind: What they are parsed to.
        taken: Is given each snapshot that is to count from now on.
        changed: Awaited after a snapshot that differs from the one before was taken; never twice at a time.
        refused: Is told of values that break a rule, so that the last good ones stay; None when that is over.
        seen: Is given the agent's texts at each look, before they are parsed.
    """

    def __init__(
        self,
        agent: Agent,
        plugin_id: str,
        kind: type[Settings],
        *,
        taken: Callable[[Any], object],
        changed: Callable[[Change[Any]], Awaitable[object]],
        refused: Callable[[SettingsError | None], object],
        seen: Callable[[Mapping[str, str]], object],
    ) -> None:
        self._agent, self._plugin_id, self._kind = agent, plugin_id, kind
        self._taken, self._changed, self._told, self._seen = taken, changed, refused, seen
        self._values: dict[str, str] = {}
        self._bad_values: dict[str, str] | None = None
        self._refused: SettingsError | None = None
        # One look at a time: an older answer must not replace a newer one.
        self._lock = anyio.Lock()
        self._untold: Change[Any] | None = None
        self._telling = False
        self._secrets: dict[str, None] = {}
        self.current: Any = None

    def take(self, values: dict[str, str]) -> None:
        """Take the first values.

        Raises:
            SettingsError: They break a rule.
        """
        self._seen(values)
        self.current, self._values = self._made(lambda: self._kind.parse(values)), values
        self._note_secrets()
        self._taken(self.current)

    def _made(self, make: Callable[[], Settings]) -> Settings:
        """Return a new snapshot; whatever the author's `validate` raises is a rule that is broken."""
        made = attempted(make)
        if not isinstance(made, Failure):
            return made
        if isinstance(made.error, SettingsError):
            raise made.error
        # Without its text, which may hold a secret that nobody knows yet.
        where = extract_tb(made.error.__traceback__)[-1]
        raise SettingsError(
            f"{self._kind.__name__}: checking the values failed with {type(made.error).__name__} "
            f"({where.filename}, line {where.lineno}); validate() must raise ValueError where a rule is broken",
            rule="what validate() accepts",
        ) from None

    async def refresh(self) -> None:
        """Ask the agent for the settings now, and take them.

        Raises:
            SettingsError: They break a rule; the last good ones stay.
            AgentError: The agent refused or could not be reached.
        """
        async with self._lock:
            change = self._change_to(await self._agent.settings(self._plugin_id))
        if change is not None:
            self._taken(change.new)
            self._untold = _merged(self._untold, change)
        await self._tell()
        if self._refused is not None:
            raise SettingsError(str(self._refused), key=self._refused.key, rule=self._refused.rule)

    async def _tell(self) -> None:
        """Tell of changes one after the other; what comes meanwhile becomes one more change at the end.

        Whoever changes something while another call tells does not wait for it: it may be that very hook.
        """
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold is not None:
                change, self._untold = self._untold, None
                await self._changed(change)
        finally:
            self._telling = False

    def secrets(self) -> frozenset[str]:
        """Return the texts that must not be seen: of the snapshot of now, and the last `SECRETS` of earlier ones."""
        return frozenset(tuple(self._secrets))

    def _note_secrets(self) -> None:
        new = dict.fromkeys(secrets_of(self.current))
        old = [text for text in self._secrets if text not in new][-SECRETS:]
        self._secrets = dict.fromkeys(old) | new  # replaced as a whole: logs of other threads read it

    def _change_to(self, values: dict[str, str]) -> Change[Any] | None:
        self._seen(values)
        if values == self._bad_values:
            return None
        old, new = self.current, self.current
        if values != self._values:
            try:
                new = self._made(lambda: self._kind.parse(values))
            except SettingsError as exc:
                self._bad_values, self._refused = values, exc
                self._told(exc)
                return None
        if self._refused is not None:
            self._bad_values = self._refused = None
            self._told(None)
        self.current, self._values = new, values
        self._note_secrets()
        names = difference(old, new)
        return Change(old=old, new=new, names=names) if names else None

    async def write(self, changes: Mapping[str, Any]) -> None:
        """Write attributes that changed, one by one, in the order in which they are declared, and take them.

        Raises:
            SettingsError: A value breaks a rule; nothing was written.
            AgentError: The agent refused or could not be reached.
        """
        # A whole new snapshot is made first, so that every rule has been checked before anything is written.
        new = self._made(lambda: replace(self.current, **changes))
        before, after = flat(self.current), flat(new)
        for leaf in leaves_of(self._kind):
            name, _, inner = leaf.name.partition(".")
            if name in changes and not (inner and after[leaf.key] == before[leaf.key]):
                for key in (leaf.key, *standing_aliases(self._kind, self._values, leaf.key)):
                    await self._agent.put_setting(self._plugin_id, key, after[leaf.key])
        await self._refresh_for_caller()

    async def revert(self) -> None:
        """Have the agent go back to the plugin's file, and take what that holds.

        Raises:
            AgentError: The agent refused or could not be reached.
            SettingsError: The file breaks a rule; the last good values stay.
        """
        await self._agent.revert(self._plugin_id)
        await self._refresh_for_caller()

    async def _refresh_for_caller(self) -> None:
        await self.refresh()
        self._taken(self.current)  # Once more: what a call has changed it sees, even where `watch` was quicker.

    async def watch(self, interval: Callable[[], float], awake: Callable[[], bool]) -> None:
        """Look at the settings again and again, every `interval()` seconds with 10 % jitter, while `awake`."""
        random = Random()  # noqa: S311  jitter, no secret
        while True:
            await anyio.sleep(interval() * random.uniform(0.9, 1.1))
            if awake():
                try:
                    await self.refresh()
                except (AgentError, SettingsError) as exc:  # `refused` was told when it was new.
                    log.debug("settings.unread", extra={"reason": str(exc)})


async def system_settings(agent: Agent) -> dict[str, str]:
    """Return the agent's own merged settings."""
    return await agent.settings(SYSTEM_PLUGIN)
