"""What a campaign leaves for the verdict: what everybody noted, as values. No I/O."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.edits.notes import (
    EVERY_OTHER,
    FOREIGN,
    SECRET,
    STAMPS,
    Seen,
    Snapshot,
    Transaction,
    is_own,
    written_by,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One write by others: it took effect between the two times. Without a key everything was reverted."""

    key: str
    stamp: int
    begun: int
    ended: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the agent held at a moment between two times, as it holds it."""

    begun: int
    ended: int
    values: Mapping[str, str]

    @property
    def own(self) -> frozenset[int]:
        """The numbers of our transactions in it."""
        texts = (self.values.get(key, "").removeprefix(SECRET).strip("[]") for key in (*STAMPS, EVERY_OTHER))
        stamps = (int(text.split(",")[0]) for text in texts if text)
        return frozenset(filter(is_own, stamps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One `kill -9` as it came."""

    run: int
    aim: str
    at: int
    hit: bool
    """The agent held the request that it was aimed at."""
    amid: bool
    """A transaction was under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that there is to judge."""

    seen: Sequence[Seen]
    transactions: Mapping[int, Transaction]
    others: Sequence[Written] = ()
    held: Sequence[Held] = ()
    kills: Sequence[Kill] = ()
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each kind was set."""
    asked: int = 0
    ended_by_itself: Sequence[str] = ()
    """How processes ended that nobody had killed."""
    mine: Snapshot | None = None
    """What the plugin's handlers see in the end; None: they do not answer."""
    theirs: Snapshot | None = None
    """What the agent has in the end."""
    intents: Sequence[str] = ()
    """Intent files that are left."""
    leaks: Sequence[str] = ()
    """Where a secret can be read."""


class Excuses:
    """Who else can have put a value in the place of one of ours, since a moment."""

    def __init__(self, others: Iterable[Written], transactions: Iterable[Transaction]) -> None:
        others = tuple(others)
        self._stamped = {(each.key, each.stamp): each.ended for each in others if each.stamp >= FOREIGN}
        mine = [each for each in transactions if each.kind == "revert"]
        self._reverts = [(each.begun, each.ended) for each in others if not each.key]
        # A revert that a kill has cut, or that failed, may have been carried out; at any time until it was over.
        self._reverts += [(each.begun, each.ended if each.ended is not None else 1 << 62) for each in mine]

    def has(self, key: str, stamp: int, since: int, until: int) -> bool:
        """Tell whether somebody else can have put a stamp to a key between two moments."""
        if stamp >= FOREIGN:
            return self._stamped.get((key, stamp), -1) >= since
        return any(begun <= until and ended >= since for begun, ended in self._reverts)


def missing(one: Transaction, snapshot: Snapshot, until: int, excuses: Excuses) -> list[str]:
    """Return the keys of a transaction that have another value, for which nobody else can be the reason."""
    return [
        key
        for key in written_by(one.number)
        if (stamp := getattr(snapshot, key)) != one.number
        and (is_own(stamp) or not excuses.has(key, stamp, one.begun, until))
    ]


def completed(one: Transaction, seen: Seen) -> bool:
    """Tell whether a transaction that had reported failure is there as its secret arrived after a kill.

    No process knows a secret of the one before, so that the only way to have no mix is to write what goes with it.
    """
    return EVERY_OTHER in written_by(one.number) and seen.run > one.run and seen.snapshot.token == one.number


def cut(given: Evidence) -> Iterator[tuple[Transaction, Seen | None]]:
    """Yield each edit that a kill has cut, with what was there when the next run came up."""
    ups = [seen for seen in given.seen if seen.by == "up"]
    for one in given.transactions.values():
        if one.outcome is None and one.kind != "revert":
            yield one, next((seen for seen in ups if seen.run > one.run), None)


def there(one: Transaction, up: Seen, excuses: Excuses) -> int:
    """Return how many keys of a transaction are as it wants them, or as others do."""
    if all(getattr(up.snapshot, key) != one.number for key in written_by(one.number)):
        return 0
    return len(written_by(one.number)) - len(missing(one, up.snapshot, up.at, excuses))
