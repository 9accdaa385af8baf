"""The link: one owner of connecting, subscribing, proving and restoring the session with the broker.

A state machine over a `Session` port; knows no MQTT library. Time comes from anyio, so that a test's clock rules it.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol
from uuid import uuid4

import anyio

from .errors import AgentError, LinkLost
from .eventloop import loop_clock
from .message import Publication, Received
from .plugin import Gap

log = logging.getLogger("kepm_plugin.link")

Deliver = Callable[[Sequence[Received]], None]

SUSPENDED = "suspended"
"""Reason of a gap that a sleep of the machine, or a pause of the process, has made."""

LATE = 2
"""By so many ticks everything must be late to count as a sleep."""


LATE_ECHO = 1.1
"""By so many deadlines the end of an echo's deadline must be noticed late to count as a blocked loop, or a sleep."""


class Session(Protocol):
    """One connection to the broker, from CONNACK to its loss."""

    @property
    def session_present(self) -> bool:
        """Whether the broker had kept the session (CONNACK)."""
        ...

    @property
    def version(self) -> str:
        """MQTT version, "5" or "3.1.1"."""
        ...

    @property
    def in_flight_maximum(self) -> int:
        """How many publications may be unacknowledged."""
        ...

    @property
    def reading_since(self) -> float:
        """Since when, on the loop's clock, it is read without a pause; infinite while reading is paused."""
        ...

    def pause_reading(self) -> None:
        """Leave with the broker what it sends, from after the current batch on; harmless in a pause, or after the loss.

        Publishing and acknowledging go on, but confirmations are not read either: a handler that waits for one, or
        for an answer, waits for the end of the pause. A new session is read.
        """
        ...

    def resume_reading(self) -> None:
        """Read again; harmless without a pause, or after the loss."""
        ...

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Return when the broker has granted every filter, of one or more. Raises BrokerRefused, LinkLost."""
        ...

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Return when the broker has confirmed. Raises LinkLost."""
        ...

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Queue acknowledgements; harmless after the loss."""
        ...

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Send without blocking; call back when the broker has it. Raises LinkLost."""
        ...

    async def lost(self) -> str:
        """Return, with the reason, when the connection is gone."""
        ...


Connector = Callable[[Deliver], AbstractAsyncContextManager[Session]]


class Observer(Protocol):
    """What the link reports to."""

    def received(self, batch: Sequence[Received], session: Session) -> None:
        """Everything that was read in one drain."""
        ...

    async def up(self, session: Session, gap: Gap | None) -> None:
        """The subscriptions are confirmed; `gap` is None at the first time."""
        ...

    async def down(self, reason: str) -> None:
        """The session is gone, or an attempt failed."""
        ...

    def proof(self, proven: bool) -> None:
        """The first echo came back, or did not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """How patient to be. Times are in seconds."""

    filters: Callable[[], Sequence[str]]
    """What to subscribe, asked at each connect; a plugin that only publishes has nothing."""
    qos: int = 1
    echo_topic: str | None = None
    budget: float = 600.0
    """For how long a lost link is restored."""
    attempt: float = 20.0
    """What one attempt takes at most, with two versions of MQTT and the subscribing; more is a sleep of the machine."""
    first_delay: float = 0.05
    max_delay: float = 0.8
    tick: float = 5.0
    quiet: float = 10.0
    """Without anything received for so long, an echo is sent."""
    echo_timeout: float = 4.0
    """With what is quiet, and a reconnect, a link that has died in silence is replaced within 15 s."""


def delays(first: float, limit: float) -> Iterator[float]:
    """Upper bounds of the waits before each attempt: doubling from `first`, never above `limit`."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, limit)


@dataclass(slots=True)
class _Away:
    """Why and since when there is no session, and how much of the budget is spent."""

    since: float
    reason: str
    waits: Iterator[float]
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class _Served:
    """What became of one attempt."""

    connected: bool
    reason: str
    ended: float
    slept: bool = False


class Link:
    """Keeps the session up until the budget for restoring it is spent."""

    def __init__(
        self, connect: Connector, observer: Observer, options: LinkOptions, random: Random | None = None
    ) -> None:
        self._connect, self._observer, self._options = connect, observer, options
        self._random = random or Random()  # noqa: S311  jitter, no secret
        self._now = loop_clock()
        self._heard = self._ticked = 0.0
        self._slept_at = -math.inf
        self._nonce = b""
        self._echoed = anyio.Event()
        self._proven: bool | None = None
        self.connects = 0
        """Sessions since start."""

    async def run(self) -> None:
        """Connect, serve, reconnect, without end.

        Raises:
            LinkLost: The budget is spent.
        """
        away = _Away(self._now(), "start", self._waits())
        while True:
            started = self._now()
            served = await self._session(away)
            if not served.connected:
                self._spend(away, started, self._options.attempt)
            else:
                # A session that ends as soon as it began, such as one that is taken over, does not make us hurry.
                brief = served.ended - started <= self._options.max_delay
                reason = SUSPENDED if served.slept else served.reason
                away = _Away(served.ended, reason, away.waits if brief else self._waits())
            await self._observer.down(served.reason)
            if away.spent >= self._options.budget:
                raise LinkLost(
                    f"the link to the broker could not be restored within {self._options.budget:g} s "
                    f"({served.reason}); the process ends so that the agent restarts it"
                )
            paused = self._now()
            wait = self._random.uniform(0, next(away.waits))
            await anyio.sleep(wait)
            self._spend(away, paused, wait)

    def _waits(self) -> Iterator[float]:
        return delays(self._options.first_delay, self._options.max_delay)

    def _spend(self, away: _Away, started: float, expected: float) -> None:
        """Take the time since `started` from the budget; after a sleep of the machine everything starts anew."""
        elapsed = self._now() - started
        if elapsed <= expected + LATE * self._options.tick:
            away.spent += elapsed
            return
        log.info("link.resumed", extra={"seconds": round(elapsed, 1)})
        away.reason, away.waits, away.spent = SUSPENDED, self._waits(), 0.0

    async def _session(self, away: _Away) -> _Served:
        early: list[Received] = []
        current: Session | None = None

        def deliver(batch: Sequence[Received]) -> None:
            # A kept session delivers right behind CONNACK, before the connector has handed the session over.
            if current is None:
                early.extend(batch)
            else:
                self._received(batch, current)

        connected = slept = False
        try:
            async with self._connect(deliver) as session:
                if filters := self._options.filters():
                    await session.subscribe(filters, self._options.qos)
                connected = True
                gap = None
                if self.connects:
                    seconds = self._now() - away.since
                    gap = Gap(seconds=seconds, reason=away.reason, session_present=session.session_present)
                self.connects += 1
                await self._observer.up(session, gap)
                current = session
                self._received(early, session)
                reason = await self._watch(session)
                slept = self._has_slept()
        except AgentError as exc:
            reason = str(exc)
        return _Served(connected, reason, self._now(), slept)

    def _received(self, batch: Sequence[Received], session: Session) -> None:
        self._heard = self._now()
        self._observer.received(batch, session)

    def echo(self, received: Received) -> None:
        """Take what came on the echo's topic; only our own nonce proves anything."""
        if received.payload == self._nonce:
            self._echoed.set()

    async def _watch(self, session: Session) -> str:
        """Return why the session ended."""
        reason = ""

        async def until(end: Callable[[], Awaitable[str]]) -> None:
            nonlocal reason
            reason = await end()
            tasks.cancel_scope.cancel()

        self._ticked = self._now()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until, session.lost, name="kepm.link.lost")
            tasks.start_soon(self._tick, name="kepm.link.tick")
            if self._options.echo_topic is not None:
                tasks.start_soon(until, partial(self._prove, session), name="kepm.link.echo")
        return reason

    async def _tick(self) -> None:
        """Look at the clock; what is late by two ticks has slept."""
        while True:
            await anyio.sleep(self._options.tick)
            self._has_slept()
            self._ticked = self._now()

    def _has_slept(self) -> bool:
        """Tell whether the machine has just slept: what the broker makes of that shows a little later."""
        now, tick = self._now(), self._options.tick
        if now - self._ticked > tick + LATE * tick:
            log.info("link.resumed", extra={"seconds": round(now - self._ticked, 1)})
            self._slept_at = self._ticked = now
        return now - self._slept_at <= self._options.echo_timeout + LATE * tick

    async def _prove(self, session: Session) -> str:
        """Send an echo at once, later when nothing else comes; return when one is missed that should have come."""
        while True:
            sent = self._now()
            came = await self._echo(session)
            # A loop that was blocked, or a machine that slept, has missed nothing: it gets another try at once.
            late = not came and self._now() - sent > LATE_ECHO * self._options.echo_timeout
            # Nor has one that did not read, or has just begun again.
            unread = not came and session.reading_since > sent - self._options.echo_timeout
            if came and self._proven is not True:
                self._proven = True
                self._observer.proof(True)
            elif not (came or late or unread) and self._proven is None:
                self._proven = False
                self._observer.proof(False)
            elif self._proven and not (came or late or unread) and self._heard <= sent:
                return "the echo did not come back"
            if late:
                continue
            since = self._now()
            # A rest too small for the clock would never pass.
            while (rest := self._options.quiet - (self._now() - max(since, self._heard))) > 0.001:  # noqa: ASYNC110
                await anyio.sleep(rest)  # What is received meanwhile puts it off; waking for each would cost more.

    async def _echo(self, session: Session) -> bool:
        """Send one echo and tell whether it came back in time."""
        self._nonce, self._echoed = uuid4().hex.encode(), anyio.Event()
        with suppress(LinkLost):
            # QoS 0: a broker with 20 messages unacknowledged delivers no further one at QoS 1.
            session.publish(Publication(self._options.echo_topic or "", self._nonce, qos=0))
        with anyio.move_on_after(self._options.echo_timeout):
            await self._echoed.wait()
        return self._echoed.is_set()
