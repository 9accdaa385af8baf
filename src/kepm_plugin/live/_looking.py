"""Looks at the agent's settings: what is stable and valid is taken, what is open is finished or undone before."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import anyio

from kepm_plugin.errors import AgentError, SettingsError
from kepm_plugin.settings import Scalar, Settings, flat

from ._access import Access, Agent
from ._kept import Kept
from ._options import LiveOptions, Told
from ._reading import Reading, Texts
from ._record import Record, same
from ._taking import Taking
from ._transaction import Transactions
from ._watch import StatusHash

log = logging.getLogger("kepm_plugin.settings")

OPEN_FILE: Final = "settings.open.json"
GOOD_FILE: Final = "settings.good.json"
SETTLING: Final = 10
"""Looks for two that agree, before it is left to the next interval."""
INSURANCE: Final = 10
"""Of so many looks one reads all settings, whatever the hash says."""


class Looking:
    """Everything but `watched` is called by whoever holds the lock: an older answer must not replace a newer one."""

    def __init__(self, agent: Agent, plugin_id: str, kind: type[Settings], options: LiveOptions, told: Told) -> None:
        folder = options.folder
        self._settle, self._told = options.settle, told
        self.reading = Reading(kind)
        self.record = Record(None if folder is None else folder / OPEN_FILE, self.reading.secret)
        self.kept = Kept(None if folder is None else folder / GOOD_FILE, self.reading)
        self.access = Access(agent, plugin_id, self.reading, self.record)
        self.transactions = Transactions(self.access, self.reading, self.record, self._keep)
        self.hash = StatusHash(lambda: agent.status(plugin_id), options.contract)
        self.taking = Taking(told)
        self.lock = anyio.Lock()
        self.values: Texts = {}
        """The agent's texts, when two looks agreed last."""
        self.refused: SettingsError | None = None
        """Why they are not in force."""
        self._stuck = ""
        self._stable: object = None
        self._resolved: dict[str, Scalar] = {}
        self._looks = 0

    @property
    def current(self) -> Any:
        """The snapshot in force; None at the start."""
        return self.taking.current

    def meant(self) -> dict[str, Scalar]:
        """Return what the keys of this plugin should have, as far as that is known."""
        known = dict(self.kept.settings or {}) if self.current is None else flat(self.current)
        return known | self._resolved

    def _keep(self, values: Texts, done: Mapping[str, Scalar]) -> None:
        if not self.reading.obeys(values):
            # Others have broken a rule meanwhile. What was good before is so with this change, too.
            values = self.reading.over(self.kept.texts(values) or values, done)
        with suppress(SettingsError):
            new = self.reading.parse(values)
            self.record.became(flat(new), by_us=True)
            self.kept.keep(new)

    def reverted(self, values: Texts) -> None:
        """Note what this plugin's own revert has changed; it is taken and kept when two looks agree."""
        with suppress(SettingsError):
            self.record.became(flat(self.reading.parse(values)), by_us=True)

    async def watched(self) -> None:
        """Look as seldom at the values as is safe: where the hash is the same as before, they are, too.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        async with self.lock:
            self.record.tidy()
            await self.resolve()
            self._looks += 1
            if self._looks % INSURANCE == 0:
                await self._behind_the_hash()
            else:
                # Read before the values that it is taken to stand for.
                found = await self.hash.read()
                if found is None or found != self.hash.known:
                    self.hash.known = found if await self.look() else None
        self.taking.tell_soon()

    async def _behind_the_hash(self) -> None:
        values = await self.access.steady(self.meant())
        if self.reading.mark(values) != self._stable:
            found = await self.hash.check()
            self.hash.known = found if await self.look(values) else None

    async def look(self, values: Texts | None = None) -> bool:
        """Look until two looks agree, and take what they show; False where they do not.

        Args:
            values: The first look, if it was made already.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        first = await self.access.steady(self.meant()) if values is None else values
        if self.reading.mark(first) == self._stable:
            return True
        settled = await self.settled(first)
        if settled is None:
            log.info("settings.unsettled", extra={"reason": "they keep changing; the next look is at its time"})
            return False
        self.accept(settled)
        return True

    async def settled(self, values: Texts) -> Texts | None:
        """Return the texts when a further look agrees with the one before; None where none does.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        for _ in range(SETTLING):
            await anyio.sleep(self._settle)
            again = await self.access.steady(self.reading.scalars(values))
            if self.reading.mark(again) == self.reading.mark(values):
                return again
            values = again
        return None

    async def begin(self) -> None:
        """Bring in order what the run before has left.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        self.record.state = self.kept.settings
        await self.resolve()
        await self.transactions.complete(self.meant())
        await self.resolve()

    async def resolve(self) -> None:
        """Finish or undo what is open; as long as something is, nothing is taken.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        if self.record.intent is None:
            return
        try:
            self._resolved = await self.transactions.resolve(self.meant())
        except AgentError as exc:
            self._stuck = f"a change of this plugin's own is neither finished nor undone: {exc}"
            self._tell_trouble()
            raise
        self._stuck, self._stable, self.hash.known = "", None, None
        self._tell_trouble()

    def accept(self, values: Texts) -> SettingsError | None:
        """Take stable texts, or refuse them; return why."""
        known, self._stable, self.values = self._stable, self.reading.mark(values), values
        self._resolved = {}
        if known != self._stable:
            self._told.seen(values)
        try:
            new = self.reading.parse(values)
        except SettingsError as exc:
            self.refused = exc
            log.error("settings.refused", extra={"reason": str(exc), "key": exc.key, "rule": exc.rule})
        else:
            self.refused = None
            self.record.became(flat(new), by_us=False)
            self.record.tidy()
            self.kept.keep(new)
            self.taking.take(new)
        self._tell_trouble()
        return self.refused

    def take_kept(self, values: Texts) -> bool:
        """Take the last good settings, with the secrets among the agent's texts; False where that cannot be."""
        texts = self.kept.texts(values)
        if texts is None or self._is_half_written(values):
            return False
        try:
            kept = self.reading.parse(texts)
        except SettingsError:
            return False
        log.warning("settings.last_good", extra={"reason": "what was in force in the last run is in force again"})
        self.values = values
        self.taking.take(kept)
        self._told.reported()
        return True

    def _is_half_written(self, values: Texts) -> bool:
        """Tell whether one of the agent's secrets belongs to the open transaction, and not to what was kept."""
        intent = self.record.intent
        secret = () if intent is None else (step for step in intent.steps if step.key in self.reading.secret)
        return any(not same(step.old, self.reading.now(values, step.key)) for step in secret)

    def _tell_trouble(self) -> None:
        refused = "" if self.refused is None else f"the last good settings stay in force: {self.refused}"
        self._told.trouble("; ".join(filter(None, (refused, self._stuck))) or None)
        self._told.reported()
