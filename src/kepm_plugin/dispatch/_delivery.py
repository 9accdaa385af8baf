"""One message to one handler: counted where it may end the process, decoded, known again, called."""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio

from kepm_plugin.errors import StoreError
from kepm_plugin.message import EMPTY, Decoded, Message
from kepm_plugin.plugin import holding_settings
from kepm_plugin.store import Store

from ._call import Failure, attempted, guarded
from ._ends import Trouble
from ._lane import Lane
from ._outcome import Outcomes, identity, key_of
from ._tickets import CommandCaller, Tickets
from ._window import Window
from ._work import Work

log = logging.getLogger("kepm_plugin.dispatch")

DELIVERIES: Final = 5
"""Deliveries of one message that may end with the process; after them it is a dead letter.

With fewer, a message that is being handled whenever somebody else kills the process would be given up: under a thousand
random kills some were at three, none at five.
"""

ALONE: Final = 60.0
"""Seconds that a message whose last delivery ended with the process waits for others of its kind."""


class Delivery:
    """Gives messages to handlers.

    A message may end the process: by code that is not Python, by `os._exit`, by a loop that never gives up the thread
    and is cut off. The next run handles it again, but not for ever. Of a message that an earlier run left, each
    delivery is counted in the journal before it begins, and counted out where it is only cut short by an orderly stop.
    (In the run that received it, nothing is counted: that would cost each message a commit. So one that merely waited
    has one delivery less.) After `DELIVERIES` it becomes the dead letter `crashed`, and a command is answered with no.
    A message whose counted delivery ended with the process is handled while no other such message is, so that what
    only ran beside the culprit comes through.
    """

    def __init__(
        self,
        plugin: Any,
        store: Store,
        outcomes: Outcomes,
        tickets: Tickets,
        window: Window,
        trouble: Trouble,
        closed: Callable[[], bool],
    ) -> None:
        self._plugin, self._store, self._outcomes, self._tickets = plugin, store, outcomes, tickets
        self._window, self._trouble, self._closed = window, trouble, closed
        self._alone = anyio.Lock()

    def handle(self, lane: Lane, work: Work) -> Awaitable[None] | None:
        """Handle one message; await what is returned, if anything is. It is ended then, or `due` again."""
        if (work.id is not None or work.attempts) and self._store.too_old(work.received.received_at):
            self._outcomes.too_old(lane, work)
            return None
        if work.delivery == 1 or work.id is None:
            return self._deliver(lane, work)
        return self._deliver_again(lane, work, work.id)

    async def _deliver_again(self, lane: Lane, work: Work, number: int) -> None:
        alone = False
        if work.delivery > 2:
            with anyio.move_on_after(ALONE):
                await self._alone.acquire()
                alone = True
        try:
            if not self._closed():
                await self._deliver_counted(lane, work, number)
        finally:
            if alone:
                self._alone.release()

    async def _deliver_counted(self, lane: Lane, work: Work, number: int) -> None:
        self._count(number, work.delivery)
        try:
            if (call := self._deliver(lane, work)) is not None:
                await call
        except anyio.get_cancelled_exc_class():
            self._count(number, work.delivery - 1)
            raise

    def _count(self, number: int, delivery: int) -> None:
        try:
            self._store.begin(number, delivery)
        except StoreError as exc:  # Handled all the same: that is promised, the count is a precaution.
            self._trouble("store", str(exc))

    def _deliver(self, lane: Lane, work: Work) -> Awaitable[None] | None:
        """Return the call of the handler; None where it is not called."""
        received = work.received
        # A payload type may have code of its author, who may raise anything.
        decoded: Any = attempted(lane.decode, received.payload)
        if isinstance(decoded, Failure):
            self._outcomes.undecoded(lane, work, decoded)
            return None
        value, correlation = decoded if isinstance(decoded, Decoded) else (decoded, None)
        named = None
        if correlation is not None or received.correlation_data is not None or lane.dedupe is not None:
            named = identity(correlation, received)
            if self._repeats(lane, work, correlation, named):
                return None
        caller = CommandCaller(self._tickets, lane, work, correlation) if lane.is_command else None
        message: Message[Any] = Message(
            payload=value,
            topic=received.topic,
            params=lane.params(received.topic) if lane.has_params else EMPTY,
            correlation_id=named,
            delivery=work.delivery + work.attempts,
            retained=received.retained,
            qos=received.qos,
            received_at=received.received_at,
            properties=received.properties,
            _caller=caller,
        )
        return self._called(lane, work, message, correlation, caller)

    def _repeats(self, lane: Lane, work: Work, correlation: object, named: str | None) -> bool:
        """Tell whether a message repeats another one, and was ended as that."""
        received = work.received
        if work.seen is not None or (key := key_of(lane, received, correlation)) is None:
            return False
        who = hash((named, received.correlation_data, received.response_topic))
        seen, repeated = self._window.enter(key, received, who, equal=lane.dedupe is None)
        if repeated:
            self._outcomes.repeated(lane, work, seen, who)
        else:
            work.seen, seen.safe = seen, work.id is not None
        return repeated

    async def _called(
        self, lane: Lane, work: Work, message: Message[Any], correlation: object, caller: CommandCaller | None
    ) -> None:
        started = time.monotonic()
        with holding_settings(self._plugin):
            if lane.call is None:
                outcome = await guarded(lane.handle, message)
                self._ended(lane, work, correlation, caller, started, outcome)
            else:
                await lane.call(message, partial(self._ended, lane, work, correlation, caller, started))

    def _ended(
        self,
        lane: Lane,
        work: Work,
        correlation: object,
        caller: CommandCaller | None,
        started: float,
        outcome: object,
    ) -> None:
        seconds = time.monotonic() - started
        if caller is not None:
            caller.over = True
        self._outcomes.ended(lane, work, correlation, outcome, seconds)
        if work.ticket is not None:
            self._tickets.ended(work)
