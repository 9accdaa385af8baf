"""What was sent to the plugin, what became of it, and what must not have: the model of the session's tests."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .scripts import LANES, Lane


class Broken(AssertionError):
    """A promise was broken."""


@dataclass(eq=False)
class Sent:
    """One message."""

    number: int
    handler: str
    topic: str
    payload: bytes
    qos: int
    identity: str | None = None
    """What makes another message with the same handler a repetition of this one."""
    waits: str = "not"
    ends: str = "ok"
    taken: bool = False
    """The broker has taken it for the plugin."""
    deliveries: int = 0
    acknowledged: bool = False
    """The broker has seen the acknowledgement."""
    begun: list[int] = field(default_factory=list[int])
    """In which runs its handler began."""
    ended: list[str] = field(default_factory=list[str])
    allowed: int = 1
    """How often it may be handled."""
    failed_at: int | None = None
    """How many messages there were when its handler failed."""
    ticket: str = ""

    @property
    def lane(self) -> Lane:
        return LANES[self.handler]

    @property
    def correlation(self) -> str | None:
        """By which its answer is known."""
        return self.identity if self.lane.command else None

    @property
    def done(self) -> bool:
        """Whether a handler has ended it for good, but for what becomes a dead letter."""
        return any(one in ("ok", "reject", "defer", "early") for one in self.ended)

    def repeats(self, other: "Sent") -> bool:
        """Whether it may be taken for a repetition of another one."""
        if self is other or self.identity is None or (self.handler, self.identity) != (other.handler, other.identity):
            return False
        return not self.lane.command or (self.topic, self.payload) == (other.topic, other.payload)


class Ledger:
    """All messages, and the complaints."""

    def __init__(self, *, journal: bool) -> None:
        self.sent: list[Sent] = []
        self.answers: Counter[str] = Counter()
        """By correlation id."""
        self.in_order = True
        """False once something was left to the broker that comes again later."""
        self._journal = journal
        self._latest: dict[str, int] = {}
        self._complaints: list[str] = []

    def complain(self, complaint: str) -> None:
        """Note what was found inside the framework's own calls, where raising would be part of the play."""
        self._complaints.append(complaint)

    def check(self) -> None:
        """Raise the first complaint."""
        if self._complaints:
            raise Broken(self._complaints[0])

    def delivered(self, number: int) -> None:
        """Note that the broker has sent a message."""
        sent = self.sent[number]
        sent.deliveries += 1
        # A second copy is a second message, unless it came only as the first one had not been begun with.
        if sent.deliveries > 1 and (self._journal or sent.begun):
            sent.allowed += 1

    def copied(self, number: int) -> None:
        """Note that the broker sends a message twice over."""
        if not self._journal and not self.sent[number].begun:
            self.sent[number].allowed += 1

    def begins(self, number: int, run: int) -> None:
        """Note that a handler begins."""
        sent = self.sent[number]
        if len(sent.begun) == sent.allowed:
            self.complain(f"message {number} was handled {len(sent.begun) + 1} times, and {sent.allowed} are due")
        if not sent.begun and sent.qos and sent.lane.ordered and self.in_order:
            # What was taken for a repetition may come again when nobody remembers that any more.
            late = number < self._latest.get(sent.topic, -1)
            if late and not any(sent.repeats(other) for other in self.sent):
                self.complain(f"message {number} was handled after {self._latest[sent.topic]}")
            self._latest[sent.topic] = max(number, self._latest.get(sent.topic, -1))
        sent.begun.append(run)

    def ends(self, number: int, how: str) -> None:
        """Note how a handler ended."""
        sent = self.sent[number]
        sent.ended.append(how)
        if how in ("fail", "cut"):
            sent.failed_at = len(self.sent)
        if how == "retry" or (how in ("fail", "cut") and sent.lane.retries):
            sent.allowed += 1

    def settled(self, sent: Sent, on_disk: Iterable[int]) -> bool:
        """Tell whether nothing is owed to a message any more; `on_disk` are dead letters and open tickets."""
        if sent.done or sent.number in on_disk:
            return True
        for other in self.sent:
            # What failed is handled when it is sent again.
            open_ = other.failed_at is None or sent.number < other.failed_at
            if sent.repeats(other) and (other.done or (other.number in on_disk and open_)):
                return True
        return False

    def deferred(self, number: int, ticket: str) -> None:
        """Note a ticket: a message that is in the journal once has the same one each time."""
        sent = self.sent[number]
        if self._journal and sent.qos and sent.deliveries == 1 and sent.ticket not in ("", ticket):
            self.complain(f"message {number} has another ticket than before")
        sent.ticket = ticket
