"""Whoever waits for a command's answer: interim reports, and answers that come later than the handler's end."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

from kepm_plugin.contract import Contract
from kepm_plugin.errors import UnknownTicket
from kepm_plugin.message import Publication, correlation_of, encode_json
from kepm_plugin.store import Store

from ._lane import Lane, Work
from ._outcome import Outcomes, echoed

Send = Callable[[Publication], Awaitable[None]]
"""Publishes, waiting for room in the outbox."""

SendSoon = Callable[[Publication], None]
"""Publishes from any thread, without waiting."""


class CommandCaller:
    """The `Caller` of one command that is being handled."""

    __slots__ = ("_correlation", "_lane", "_tickets", "_work", "answered", "ticket")

    def __init__(self, tickets: "Tickets", lane: Lane, work: Work, correlation: object) -> None:
        self._tickets, self._lane, self._work, self._correlation = tickets, lane, work, correlation
        self.ticket: str | None = None
        """Given out by `defer`."""
        self.answered = False
        """Answered by its ticket, before the handler has ended."""

    def defer(self) -> str:
        """Return the ticket; may be called from a handler's thread."""
        if self.ticket is None:
            self.ticket = self._tickets.give_out(self, self._work)
        return self.ticket

    async def progress(self, report: object) -> None:
        """Send an interim report."""
        if (publication := self._report(report)) is not None:
            await self._tickets.send(publication)

    def progress_soon(self, report: object) -> None:
        """Send one from any thread."""
        if (publication := self._report(report)) is not None:
            self._tickets.send_soon(publication)

    def _report(self, report: object) -> Publication | None:
        return self._tickets.report(self._lane, self._work, self._correlation, report)

    def answer(self, result: object) -> None:
        """Answer now; the handler's end then sends nothing more."""
        self._tickets.outcomes.answer_early(self._lane, self._work, self._correlation, result)
        self.answered = True


class Tickets:
    """Commands whose answer is left for later: in memory until their handler has ended, then in the journal."""

    def __init__(self, store: Store, outcomes: Outcomes, contract: Contract, send: Send, send_soon: SendSoon) -> None:
        self._store, self.outcomes, self._contract = store, outcomes, contract
        self.send, self.send_soon = send, send_soon
        self._open: dict[str, CommandCaller] = {}

    def give_out(self, caller: CommandCaller, work: Work) -> str:
        """Return a ticket; of a journalled message always the same one, whichever run handles it."""
        ticket = uuid4().hex if work.id is None else f"{work.id}-{self._store.identity}"
        self._open[ticket] = caller
        return ticket

    def ended(self, caller: CommandCaller) -> None:
        """Note that a command's handler has ended: from here on its ticket is in the journal, or void."""
        if caller.ticket is not None:
            self._open.pop(caller.ticket, None)

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
        if caller is not None and not caller.answered:
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
        self.outcomes.answer_late(lane, Work(received, id=number), correlation, result)
