"""One message to one handler: counted where it may end the process, decoded, known again, called."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import anyio

from kepm_plugin.errors import StoreError
from kepm_plugin.message import Decoded, Message
from kepm_plugin.plugin import holding_settings
from kepm_plugin.store import Store

from ._call import Failure, attempted
from ._ends import Trouble
from ._lane import Lane, Work
from ._outcome import Outcomes, identity, key_of
from ._tickets import CommandCaller, Tickets
from ._window import Window

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

    async def handle(self, lane: Lane, work: Work) -> None:
        """Handle one message; it is ended, or `due` again, on return."""
        if (work.id is not None or work.attempts) and self._store.too_old(work.received.received_at):
            self._outcomes.too_old(lane, work)
            return
        if work.delivery == 1 or work.id is None:
            await self._deliver(lane, work)
            return
        alone = False
        if work.delivery > 2:
            with anyio.move_on_after(ALONE):
                await self._alone.acquire()
                alone = True
        try:
            if not self._closed():
                await self._deliver_again(lane, work, work.id)
        finally:
            if alone:
                self._alone.release()

    async def _deliver_again(self, lane: Lane, work: Work, number: int) -> None:
        self._count(number, work.delivery)
        try:
            await self._deliver(lane, work)
        except anyio.get_cancelled_exc_class():
            self._count(number, work.delivery - 1)
            raise

    def _count(self, number: int, delivery: int) -> None:
        try:
            self._store.begin(number, delivery)
        except StoreError as exc:  # Handled all the same: that is promised, the count is a precaution.
            self._trouble("store", str(exc))

    async def _deliver(self, lane: Lane, work: Work) -> None:
        received = work.received
        # A payload type may have code of its author, who may raise anything.
        decoded: Any = attempted(lane.decode, received.payload)
        if isinstance(decoded, Failure):
            self._outcomes.undecoded(lane, work, decoded)
            return
        value, correlation = decoded if isinstance(decoded, Decoded) else (decoded, None)
        named = identity(correlation, received)
        if work.seen is None and (key := key_of(lane, received, correlation)) is not None:
            who = hash((named, received.correlation_data, received.response_topic))
            seen, repeated = self._window.enter(key, received, who, equal=lane.route.spec.handler.dedupe is None)
            if repeated:
                self._outcomes.repeated(lane, work, seen, who)
                return
            work.seen, seen.safe = seen, work.id is not None
        caller = None if lane.route.response is None else CommandCaller(self._tickets, lane, work, correlation)
        message = Message(
            payload=value,
            topic=received.topic,
            params=lane.params(received.topic),
            correlation_id=named,
            delivery=work.delivery + work.attempts,
            retained=received.retained,
            qos=received.qos,
            received_at=received.received_at,
            properties=received.properties,
            _caller=caller,
        )
        started = time.monotonic()

        def ended(outcome: object) -> None:
            seconds = time.monotonic() - started
            if caller is not None:
                caller.over = True
            self._outcomes.ended(lane, work, correlation, outcome, seconds)
            if work.ticket is not None:
                self._tickets.ended(work)

        with holding_settings(self._plugin):
            await lane.call(message, ended)
