"""A transaction: several keys written, verified, and rolled back where that fails, in this process or the next one."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import anyio

from kepm_plugin.errors import (
    AgentError,
    AgentRefused,
    SettingsConflict,
    SettingsNotStored,
    SettingsReadOnly,
)
from kepm_plugin.settings import Scalar

from ._access import TRIES, Access
from ._reading import Reading, Texts
from ._record import Intent, Print, Record, Step, Trace, same

log = logging.getLogger("kepm_plugin.settings")

Keep = Callable[[Texts, Mapping[str, Scalar]], object]

BRIEF: Final = 2.0
"""Seconds for rolling back where the handler that writes is cancelled; the next look does what is left."""


class Transactions:
    """Writes of several keys, of which all count or none. One at a time; what is open is in the record."""

    def __init__(self, access: Access, reading: Reading, record: Record, keep: Keep) -> None:
        """Take `keep` to be given the texts after a transaction, and what it wrote, before it is closed."""
        self._access, self._reading, self._record, self._keep = access, reading, record, keep

    async def run(self, base: Texts, wanted: Mapping[str, Scalar]) -> dict[str, str]:
        """Write what differs from `base`, in order; return the agent's texts, which have all of it.

        The agent has no way to remove a value: rolling back stores the old one, also where it came from the file.

        Raises:
            SettingsReadOnly: The agent lets this plugin read and not write.
            SettingsConflict: Somebody else changed one of the keys meanwhile.
            SettingsNotStored: The agent said yes, and has the old values.
            AgentError: The agent refused or could not be reached. For all of them, what was written was rolled back, or
                will be; the message says which.
        """
        steps = tuple(Step(key, self._reading.now(base, key), value) for key, value in wanted.items())
        self._record.open(Intent(steps))
        try:
            await self._access.put(wanted)
            values = await self._verified(steps, self._reading.scalars(base) | dict(wanted))
        except AgentError as exc:
            error = await self._rolled_back(exc, steps)
            if error is exc:
                raise
            raise error from exc
        except anyio.get_cancelled_exc_class():
            self._record.turn()
            with anyio.move_on_after(BRIEF, shield=True), suppress(AgentError):
                await self._undo(steps)
            raise
        self._close(values, steps)
        return values

    async def resolve(self, meant: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Finish the open transaction, or undo it; return what its keys are to have now, but for others' values.

        Args:
            meant: What the other keys should have, as far as that is known.

        Raises:
            AgentError: The agent refused or could not be reached; the transaction stays open.
        """
        intent = self._record.intent
        if intent is None:
            return {}
        steps = {step.key for step in intent.steps}
        values = await self._access.steady({key: value for key, value in meant.items() if key not in steps})
        if not any(self._has(values, step.key, step.new) for step in intent.steps):
            self._record.close()
            log.info("settings.transaction_dropped")
        elif (rest := self._rest(intent, values)) is not None:
            await self._access.put(rest)
            ours = [step for step in intent.steps if step.key in rest or self._has(values, step.key, step.new)]
            values = await self._verified(ours, self._reading.scalars(values) | rest)
            self._close(values, intent.steps)
            log.info("settings.transaction_finished")
            return {step.key: now for step in ours if (now := self._reading.now(values, step.key)) is not None}
        else:
            self._record.turn()
            values = await self._undo(intent.steps)
        found = self._reading.scalars(values)
        old = (step for step in intent.steps if step.key in found and same(step.old, found[step.key]))
        return {step.key: found[step.key] for step in old}

    async def complete(self, meant: Mapping[str, Scalar]) -> None:
        """Where a secret has arrived while no process was there to put it right, write what belongs to it.

        Args:
            meant: What all keys should have, as far as that is known.

        Raises:
            AgentError: The agent refused or could not be reached; what is missing is an open transaction.
        """
        if not self._record.awaits_secret:
            return
        values = await self._access.steady(meant)
        intent = self._record.landed(lambda key, trace: self._has(values, key, trace))
        if intent is not None:
            secret, keys = intent.steps[-1].key, [step.key for step in intent.steps[:-1]]
            reason = "it was given up, and arrived while no process was there; what was written with it is set again"
            log.warning("settings.late_secret", extra={"keys": [secret], "others": keys, "reason": reason})
            self._record.open(intent)

    def _close(self, values: Texts, steps: Iterable[Step]) -> None:
        # Kept first: should the process be killed in between, what is kept is what these keys are to have.
        done = {step.key: step.new for step in steps if step.new is not None and not isinstance(step.new, Print)}
        self._keep(values, done)
        self._record.close()

    def _has(self, values: Texts, key: str, trace: Trace) -> bool:
        return same(trace, self._reading.now(values, key))

    def _is_ours(self, values: Texts, step: Step) -> bool:
        now = self._reading.now(values, step.key)
        return not same(step.old, now) and (same(step.new, now) or self._record.late(step.key, now))

    def _had(self, values: Texts, step: Step) -> bool:
        """Tell whether a key is as before a transaction, or as one before that left it for late."""
        now = self._reading.now(values, step.key)
        return same(step.old, now) or self._record.late(step.key, now)

    def _rest(self, intent: Intent, values: Texts) -> dict[str, Scalar] | None:
        """Return what has to be written to finish a transaction; None where it has to be undone."""
        new = [step for step in intent.steps if self._has(values, step.key, step.new)]
        old = [step for step in intent.steps if step not in new and self._had(values, step)]
        rest = {step.key: step.new for step in old if step.new is not None and not isinstance(step.new, Print)}
        # A secret of which the old value was in the memory of another process alone cannot be taken back.
        lasting = any(step.old is None or isinstance(step.old, Print) for step in new)
        whole = len(new) + len(rest) == len(intent.steps)
        if not lasting and (intent.aim == "undo" or not whole):
            return None
        if not self._reading.obeys(self._reading.over(values, rest)) and not (
            lasting and not self._reading.obeys(values)
        ):
            return None
        if len(rest) < len(old):
            lost = [step.key for step in old if step.key not in rest]
            reason = "they are as before while the others are new, as their values are not known any more; set them"
            log.error("settings.not_finished", extra={"keys": lost, "reason": reason})
        return rest

    async def _verified(self, steps: Sequence[Step], meant: Mapping[str, Scalar]) -> dict[str, str]:
        values = await self._access.steady(meant)
        missing = [step for step in steps if not self._has(values, step.key, step.new)]
        theirs = [step.key for step in missing if not self._has(values, step.key, step.old)]
        if theirs or 0 < len(missing) < len(steps):
            keys = theirs or [step.key for step in missing]
            raise SettingsConflict(
                f"{', '.join(keys)} was changed at the agent by somebody else while this plugin wrote", keys=keys
            )
        if missing:
            raise SettingsNotStored(
                f"the agent answered the PUT of {', '.join(step.key for step in missing)} with success, and has the "
                "values of before; unless somebody has just reverted them, it expects another body: look at "
                "`put_value_field` of the contract"
            )
        return values

    # --- back ---------------------------------------------------------------------------------------------------------

    async def _rolled_back(self, error: AgentError, steps: Sequence[Step]) -> AgentError:
        """Undo the open transaction as far as that goes; return the error that says so."""
        self._record.turn()
        try:
            await self._undo(steps)
        except AgentError:
            outcome = "what was written is rolled back as soon as the agent lets it be"
        else:
            outcome = "what was written was rolled back"
            if type(error) is AgentRefused:
                return SettingsReadOnly(
                    "the agent lets this plugin read its settings but not write them (403 to a PUT); the vendor's "
                    "pages disagree about who may: have an administrator or a policy change them, or allow it; "
                    "nothing was changed. Look at the contract's put_tier (docs/contract.md)"
                )
        error.args = (f"{error}; {outcome}",)
        return error

    async def _undo(self, steps: Sequence[Step]) -> dict[str, str]:
        """Store the old values where the new ones are, the last one first; leave others' values, and return all.

        Raises:
            AgentError: The agent refused or could not be reached; the transaction stays open.
        """
        for _ in range(TRIES):
            values = await self._access.values()
            ours = [step for step in reversed(steps) if self._is_ours(values, step)]
            back = {step.key: step.old for step in ours if step.old is not None and not isinstance(step.old, Print)}
            if not back:
                if ours:
                    reason = "their values of before are not there, or not known any more; set them again"
                    log.error("settings.not_undone", extra={"keys": [step.key for step in ours], "reason": reason})
                self._record.close()
                log.info("settings.transaction_undone")
                return values
            await self._access.put(back)
        raise AgentError("values that were rolled back do not stay so at the agent; it is tried again")
