"""The way into the journal: one commit per drain, then the acknowledgement; what cannot be written is held."""

from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from operator import attrgetter

from msgspec import Struct

from kepm_plugin.errors import StoreError
from kepm_plugin.message import Received
from kepm_plugin.store import Journalled, Store

from ._counters import Counters
from ._ends import Trouble
from ._lane import Lane
from ._work import size_of

Acknowledge = Callable[[Sequence[int]], None]

HELD = 1_000
"""Messages that wait in memory, unacknowledged, while the journal cannot be written."""

HELD_BYTES = 16 * 2**20
"""Bytes of their topics and payloads, at most."""


class Arrived(Struct, frozen=True):
    """A message for a handler, as it came."""

    lane: Lane
    received: Received
    acknowledge: Acknowledge


class Intake:
    """Journals messages, acknowledges them and passes them on, in the order in which they came.

    Args:
        store: Where they are written.
        journalled: Takes a message that is safe.
        unjournalled: Takes one of QoS 0, which stands among the others for the sake of order.
        counters: Where it counts what it had to leave to the broker.
        trouble: Is told that the journal cannot be written.
    """

    def __init__(
        self,
        store: Store,
        journalled: Callable[[Lane, Journalled], None],
        unjournalled: Callable[[Lane, Received], None],
        counters: Counters,
        trouble: Trouble,
    ) -> None:
        self._store, self._journalled, self._unjournalled = store, journalled, unjournalled
        self._counters, self._trouble = counters, trouble
        self._held: list[Arrived] = []

    def take(self, arrived: list[Arrived]) -> None:
        """Take what was read in one drain; behind what is held, if anything is."""
        kept = [each for each in arrived if each.received.qos]
        if self._held:
            self._hold(self._held + kept)
            rows = list[Journalled]()
        else:
            try:
                rows = self._store.journal([each.received for each in kept])
            except StoreError as exc:
                self._hold(kept)
                self._trouble("journal", str(exc))
                rows = []
            else:
                self._trouble("journal", None)
        written = iter(rows)
        for each in arrived:
            if not each.received.qos:
                self._unjournalled(each.lane, each.received)
            elif rows:
                self._journalled(each.lane, next(written))
        if rows:
            for acknowledge, group in groupby(kept, attrgetter("acknowledge")):
                acknowledge([each.received.mid for each in group])

    def write_again(self) -> bool:
        """Try to journal what is held; tell whether nothing is left."""
        held, self._held = self._held, []
        if held:
            self.take(held)
        return not self._held

    def forget(self) -> None:
        """Give up what is held: the broker sends it again."""
        self._held = []

    def _hold(self, arrived: list[Arrived]) -> None:
        sizes = accumulate(size_of(each.received) for each in arrived)
        self._held = [each for each, size in zip(arrived[:HELD], sizes, strict=False) if size <= HELD_BYTES]
        self._counters.refused += len(arrived) - len(self._held)
