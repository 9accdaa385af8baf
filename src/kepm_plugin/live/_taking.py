"""The snapshot that is in force, and the telling of what has changed."""

from collections.abc import Iterable
from typing import Any, Final

import anyio

from kepm_plugin.settings import Change, difference, secrets_of

from ._options import Told

SECRETS: Final = 1_000
"""Secret texts of earlier snapshots that are still masked: what was read before a change may be logged after it."""


def merged(first: Change[Any] | None, second: Change[Any]) -> Change[Any] | None:
    """Return one change for two; None where the second takes the first back."""
    if first is None:
        return second
    names = difference(first.old, second.new)
    return Change(old=first.old, new=second.new, names=names) if names else None


class Taking:
    """The snapshot of now. What changes while a change is told of becomes one more change at the end."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._untold: Change[Any] | None = None
        self._telling = False
        self._due = anyio.Event()
        self._secrets: dict[str, None] = {}
        self.current: Any = None

    def take(self, new: Any) -> None:
        """Put a snapshot in force."""
        old, self.current = self.current, new
        self.mask(secrets_of(new))
        self._told.taken(new)
        if old is not None and (names := difference(old, new)):
            self._untold = merged(self._untold, Change(old=old, new=new, names=names))

    def again(self) -> None:
        """Hand the snapshot over once more: a call sees what it has changed, also where the watch was quicker."""
        self._told.taken(self.current)

    async def run(self) -> None:
        """Tell of what `tell_soon` asks for, until cancelled."""
        while True:
            await self._due.wait()
            self._due = anyio.Event()
            await self.tell()

    def tell_soon(self) -> None:
        """Have `run` tell of changes, if there are any."""
        if self._untold is not None:
            self._due.set()

    async def tell(self) -> None:
        """Tell of changes one after the other.

        Whoever changes something while another call tells does not wait for it: it may be that very hook.
        """
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold is not None:
                change, self._untold = self._untold, None
                await self._told.changed(change)
        finally:
            self._telling = False

    def mask(self, texts: Iterable[str]) -> None:
        """Note texts that must not be seen from now on."""
        new = dict.fromkeys(texts)
        old = [text for text in self._secrets if text not in new][-SECRETS:]
        self._secrets = dict.fromkeys(old) | new  # replaced as a whole: logs of other threads read it

    def secrets(self) -> frozenset[str]:
        """Return the texts that must not be seen: of the snapshot of now, and the last `SECRETS` of earlier ones."""
        return frozenset(tuple(self._secrets))
