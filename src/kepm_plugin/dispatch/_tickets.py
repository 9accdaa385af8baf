"""Whoever waits for a command's answer: interim reports, and answers that come later than the handler's end."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from kepm_plugin.contract import Contract
from kepm_plugin.errors import PluginDefinitionError, UnknownTicket
from kepm_plugin.message import Publication, correlation_of, encode_json
from kepm_plugin.store import Store

from ._lane import Lane
from ._outcome import Outcomes, echoed
from ._work import Work

Send = Callable[[Publication], Awaitable[None]]
"""Publishes, waiting for room in the outbox."""

SendSoon = Callable[[Publication], None]
"""Publishes from any thread, without waiting."""


class CommandCaller:
    """The `Caller` of one command that is being handled."""

    __slots__ = ("_correlation", "_lane", "_tickets", "over", "work")

    def __init__(self, tickets: "Tickets", lane: Lane, work: Work, correlation: object) -> None:
        self._tickets, self._lane, self.work, self._correlation = tickets, lane, work, correlation
        self.over = False
        """The handler has ended; a thread of its own may still run."""

    def defer(self) -> str:
        """Return the ticket; may be called from a handler's thread."""
        if self.over:
            raise PluginDefinitionError(
                f"message.defer() on {self.work.received.topic!r}: its handler has ended, and so the command has been "
                "answered; call it in 'handle', before the timeout"
            )
        return self._tickets.give_out(self)

    async def progress(self, report: object) -> None:
        """Send an interim report."""
        if (publication := self._report(report)) is not None:
            await self._tickets.send(publication)

    def progress_soon(self, report: object) -> None:
        """Send one from any thread."""
        if (publication := self._report(report)) is not None:
            self._tickets.send_soon(publication)

    def _report(self, report: object) -> Publication | None:
        return self._tickets.report(self._lane, self.work, self._correlation, report)

    def answer(self, result: object) -> None:
        """Answer now; the handler's end then sends nothing more."""
        self._tickets.outcomes.answer_early(self._lane, self.work, self._correlation, result)


class Tickets:
    """Commands whose answer is left for later: in memory until their handler has ended, then in the journal."""

    def __init__(self, store: Store, outcomes: Outcomes, contract: Contract, send: Send, send_soon: SendSoon) -> None:
        self._store, self.outcomes, self._contract = store, outcomes, contract
        self.send, self.send_soon = send, send_soon
        self._open: dict[str, CommandCaller] = {}

    def give_out(self, caller: CommandCaller) -> str:
        """Return a message's ticket: always the same one; of a journalled message whichever run handles it."""
        work = caller.work
        if work.ticket is None:
            work.ticket = uuid4().hex if work.id is None else f"{work.id}-{self._store.identity}"
        self._open[work.ticket] = caller
        return work.ticket

    def ended(self, work: Work) -> None:
        """Note that a handler has ended: unless it is tried again, its ticket is in the journal now, or void."""
        unwritten = work.deferred and not (work.stored or work.answered)
        if work.ticket is not None and work.due is None and not unwritten:
            self._open.pop(work.ticket, None)

    def report(self, lane: Lane, work: Work, correlation: object, report: object) -> Publication | None:
        """Return an interim report; None where its topic is impossible."""
        payload = encode_json(self._contract.answer_progress(echoed(correlation, work.received), report))
        return self.outcomes.response(lane, work, payload)

    def answer(self, ticket: str, result: object, lane_of: Callable[[str], Lane | None]) -> None:
        """Answer a ticket; `lane_of` finds the handler of a topic.

        Raises:
            UnknownTicket: Nobody waits for it.
            BadPayload: JSON cannot carry the result; the ticket stays open.
            StoreError: The tickets cannot be read.
        """
        caller = self._open.get(ticket)
        if caller is not None and caller.work.stored:  # later than its handler has ended
            del self._open[ticket]
            caller = None
        if caller is not None and not caller.work.answered:
            caller.answer(result)
            return
        found = None if caller is not None else self._store.deferred(ticket)
        lane = None if found is None else lane_of(found[1].topic)
        if found is None or lane is None:
            raise UnknownTicket(
                f"nobody waits for the ticket {ticket!r}: it was answered before, is too old, or was given out by "
                "another plugin; answer each ticket once"
            )
        number, received = found
        correlation = correlation_of(received.payload, self._contract.correlation_field)
        self.outcomes.answer_late(lane, Work(received, 0, id=number), correlation, result)
