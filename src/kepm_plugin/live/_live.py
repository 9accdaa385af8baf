"""`LiveSettings`: the settings of a running plugin, from the first snapshot to the changes of its own."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from kepm_plugin.errors import AgentError, SettingsConflict, SettingsError, StoreError
from kepm_plugin.folder import make_private
from kepm_plugin.settings import Change, Scalar, Settings, difference, flat, secrets_of

from ._access import Agent
from ._looking import Looking
from ._options import LiveOptions, Told
from ._reading import Texts
from ._report import report
from ._watch import Watch

log = logging.getLogger("kepm_plugin.settings")


class LiveSettings:
    """The settings in force, and the ways to change them; `start` comes first.

    Args:
        agent: Where the values are.
        plugin_id: Whose they are.
        kind: What they are parsed to.
        options: How to look, and where to keep files.
        told: Who is told of what.
    """

    def __init__(self, agent: Agent, plugin_id: str, kind: type[Settings], options: LiveOptions, told: Told) -> None:
        self._options, self._told = options, told
        self._looking = looking = Looking(agent, plugin_id, kind, options, told)
        self._reading, self._record, self._taking = looking.reading, looking.record, looking.taking
        self._watch = Watch(looking.watched, options.interval, lambda: self._record.intent is not None)

    @property
    def current(self) -> Any:
        """The snapshot in force; None before `start`."""
        return self._taking.current

    def secrets(self) -> frozenset[str]:
        """Return the texts that must not be seen: of the snapshot in force, and of earlier ones."""
        return self._taking.secrets()

    def report(self) -> dict[str, object]:
        """Return the body for `<Id>/Status/settings`."""
        looking = self._looking
        return report(self._options, self._reading, self.current, looking.values, looking.refused, self._record.intent)

    # --- the first snapshot -------------------------------------------------------------------------------------------

    async def start(self, ask: Callable[[], Awaitable[dict[str, str]]], check: Callable[[], object]) -> None:
        """Take the first snapshot: the agent's, once what a killed process has left open is finished or undone.

        Where the agent's values break a rule, the last good ones are taken, with the secrets that the agent has. Where
        required secrets are missing, and nothing else, it is waited for them.

        Args:
            ask: Returns the agent's texts, as patiently as the start allows.
            check: Called while waiting; raises when there is no sense in it.

        Raises:
            AgentError: The agent could not be reached, or refused.
            SettingsError: The values break a rule, and there are no last good ones.
        """
        looking = self._looking
        self._open_files()
        values: Texts = await ask()
        async with looking.lock:
            try:
                await looking.begin()
            except AgentError as exc:
                if not looking.take_kept(values):
                    exc.args = (f"what the last run was writing can be neither finished nor undone: {exc}",)
                    raise
                return
            if not self._record.empty:
                values = await looking.access.steady(looking.meant())
            values = await self._with_secrets(values, check)
            if looking.kept.differs(values):
                values = await looking.settled(values) or values
            refused = looking.accept(values)
            if refused is not None and not looking.take_kept(values):
                raise refused

    def _open_files(self) -> None:
        if self._options.folder is None:
            return
        try:
            make_private(self._options.folder)
        except StoreError as exc:
            self._record.path = self._looking.kept.path = None
            log.warning("settings.no_folder", extra={"reason": str(exc)})
        self._record.load()
        self._looking.kept.load()

    async def _with_secrets(self, values: Texts, check: Callable[[], object]) -> Texts:
        waiting: list[str] = []
        while missing := self._reading.missing_secrets(values):
            if missing != waiting:
                waiting = missing
                log.warning("settings.waiting", extra={"keys": missing, "reason": "required secrets are not set"})
            await anyio.sleep(self._options.interval())
            check()
            try:
                values = await self._looking.access.steady(self._looking.meant())
            except AgentError as exc:
                log.debug("settings.unread", extra={"reason": str(exc)})
        return values

    # --- looking ------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look again and again, until cancelled, from `resume` on; the looks do not wait for the telling of changes."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._taking.run, name="kepm.settings.tell")
            await self._watch.run()

    def rest(self) -> None:
        """Stop looking: the link is down, and the agent probably too."""
        self._watch.rest()

    def resume(self) -> None:
        """Look at once, and go on: the link is up, perhaps to an agent that was replaced."""
        self._looking.hash.again()
        self._watch.resume()

    async def refresh(self) -> None:
        """Read all settings now, and take them.

        Raises:
            SettingsError: They break a rule; the last good ones stay.
            AgentError: The agent refused or could not be reached.
        """
        async with self._looking.lock:
            await self._looking.resolve()
            await self._looking.look()
        await self._taking.tell()
        self._raise_refused()

    def _raise_refused(self) -> None:
        refused = self._looking.refused
        if refused is not None:
            raise SettingsError(str(refused), key=refused.key, rule=refused.rule)

    # --- changing -----------------------------------------------------------------------------------------------------

    async def write(self, before: Settings, changes: Mapping[str, Any]) -> None:
        """Write attributes that changed since a snapshot, as one transaction, and take them.

        Raises:
            SettingsError: A value breaks a rule; nothing was written.
            SettingsConflict: Somebody else has changed one of them; the newest settings were taken.
            AgentError: As `Transactions.run` says.
        """
        after = self._reading.made(lambda: replace(before, **changes))
        self._taking.mask(secrets_of(after))
        old = flat(before)
        wanted = {key: value for key, value in flat(after).items() if value != old[key]}
        conflict: SettingsConflict | None = None
        try:
            async with self._looking.lock:
                await self._looking.resolve()
                try:
                    await self._transact(old, wanted)
                except SettingsConflict as exc:
                    conflict = exc
                    if self._record.intent is None:
                        await self._looking.look()
        finally:
            if self._record.intent is not None:
                self._watch.hurry()
                self._told.reported()
        await self._taking.tell()
        self._taking.again()
        if conflict is not None:
            raise conflict

    async def _transact(self, old: Mapping[str, Scalar], wanted: Mapping[str, Scalar]) -> None:
        looking = self._looking
        base = await looking.access.steady(looking.meant())
        puts = {key: value for key, value in wanted.items() if self._reading.now(base, key) != value}
        self._check_unchanged(base, old, puts)
        self._reading.parse(self._reading.over(base, wanted))
        if not puts:
            await looking.look(base)
            return
        looking.hash.known = None
        values: Texts = await looking.transactions.run(base, puts)
        if not self._reading.agree(base, values, but=puts):
            # Others are changing something else, key by key: that is taken when two looks agree.
            values = self._without_theirs(base, wanted)
            self._watch.hurry()
        looking.accept(values)

    def _without_theirs(self, base: Texts, wanted: Mapping[str, Scalar]) -> Texts:
        """Return the texts with only this plugin's changes, over what was stable last; that may not go with them."""
        values = self._reading.over(self._looking.values, wanted)
        try:
            self._reading.parse(values)
        except SettingsError:
            return self._reading.over(base, wanted)
        return values

    def _check_unchanged(self, base: Texts, old: Mapping[str, Scalar], puts: Mapping[str, Scalar]) -> None:
        theirs = [key for key in puts if self._reading.now(base, key) != old[key]]
        if not self._reading.obeys(base):
            # What breaks a rule was never in force, so that this may mend it; but not what has just come.
            seen = self._looking.values
            theirs = [key for key in theirs if self._reading.now(base, key) != self._reading.now(seen, key)]
        if theirs:
            raise SettingsConflict(
                f"{', '.join(theirs)} was changed since this edit began, by somebody else or by another edit of this "
                "plugin; nothing was written. Look at the settings as they are now, and edit them again",
                keys=theirs,
            )

    async def revert(self) -> Change[Any] | None:
        """Have the agent go back to the plugin's file, and take what that holds; return what it changed.

        Raises:
            AgentError: The agent refused or could not be reached.
            SettingsError: The file breaks a rule; the last good values stay.
        """
        looking = self._looking
        async with looking.lock:
            await looking.resolve()
            before, looking.hash.known = self.current, None
            values = await looking.access.reverted()
            looking.reverted(values)
            await looking.look(values)
        await self._taking.tell()
        self._taking.again()
        self._raise_refused()
        names = difference(before, self.current)
        return Change(old=before, new=self.current, names=names) if names else None
