"""The link: one owner of connecting, subscribing, proving and restoring the session with the broker.

A state machine over a `Session` port; knows no MQTT library. Time comes from anyio, so that a test's clock rules it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
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

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Return when the broker has granted every filter. Raises BrokerRefused, LinkLost."""
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
    """What to subscribe, asked at each connect."""
    qos: int = 1
    echo_topic: str | None = None
    budget: float = 600.0
    """For how long a lost link is restored."""
    attempt: float = 6.0
    """What one attempt may take, subscribing included; time beyond is a sleep of the machine."""
    first_delay: float = 0.05
    max_delay: float = 0.8
    tick: float = 5.0
    quiet: float = 10.0
    """Without anything received for so long, an echo is sent."""
    echo_timeout: float = 5.0


def delays(first: float, limit: float) -> Iterator[float]:
    """Upper bounds of the waits before each attempt: doubling from `first`, never above `limit`."""
    delay = first
    while True:
        yield delay
        delay = min(delay * 2, limit)


class Link:
    """Keeps the session up until the budget for restoring it is spent."""

    def __init__(
        self, connect: Connector, observer: Observer, options: LinkOptions, random: Random | None = None
    ) -> None:
        self._connect, self._observer, self._options = connect, observer, options
        self._random = random or Random()  # noqa: S311  jitter, no secret
        self._now = loop_clock()
        self._heard = 0.0
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
        spent, since, reason = 0.0, self._now(), "start"
        waits = delays(self._options.first_delay, self._options.max_delay)
        while True:
            started = self._now()
            served = await self._session(since, reason)
            if served.connected:
                spent, since = 0.0, served.ended
                # A session that ends as soon as it began, such as one that is taken over, does not make us hurry.
                if served.ended - started > self._options.max_delay:
                    waits = delays(self._options.first_delay, self._options.max_delay)
            else:
                spent = self._spent(spent, started, self._options.attempt)
            reason = served.reason
            await self._observer.down(reason)
            if spent >= self._options.budget:
                raise LinkLost(
                    f"the link to the broker could not be restored within {self._options.budget:g} s ({reason}); "
                    "the process ends so that the agent restarts it"
                )
            paused = self._now()
            wait = self._random.uniform(0, next(waits))
            await anyio.sleep(wait)
            spent = self._spent(spent, paused, wait)

    def _spent(self, before: float, started: float, expected: float) -> float:
        """Add the time since `started` to what is spent of the budget; after a sleep of the machine it starts anew."""
        elapsed = self._now() - started
        if elapsed > expected + 2 * self._options.tick:
            log.info("link.resumed", extra={"seconds": round(elapsed, 1)})
            return 0.0
        return before + elapsed

    async def _session(self, since: float, reason: str) -> "_Served":
        early: list[Received] = []
        current: Session | None = None

        def deliver(batch: Sequence[Received]) -> None:
            # A kept session delivers right behind CONNACK, before the connector has handed the session over.
            if current is None:
                early.extend(batch)
            else:
                self._received(batch, current)

        connected = False
        try:
            async with self._connect(deliver) as session:
                await session.subscribe(self._options.filters(), self._options.qos)
                connected = True
                self._heard = self._now()
                gap = None
                if self.connects:
                    away = self._now() - since
                    gap = Gap(seconds=away, reason=reason, session_present=session.session_present)
                self.connects += 1
                await self._observer.up(session, gap)
                current = session
                self._received(early, session)
                reason = await self._watch(session)
        except AgentError as exc:
            reason = str(exc)
        return _Served(connected, reason, self._now())

    def _received(self, batch: Sequence[Received], session: Session) -> None:
        self._heard = self._now()
        if batch:
            self._observer.received(batch, session)

    def echo(self, received: Received) -> None:
        """Take what came on the echo's topic; only our own nonce proves anything."""
        if self._nonce and received.payload == self._nonce:
            self._echoed.set()

    async def _watch(self, session: Session) -> str:
        """Return why the session ended."""
        reason = ""

        async def lost() -> None:
            nonlocal reason
            reason = await session.lost()
            tasks.cancel_scope.cancel()

        async def prove() -> None:
            nonlocal reason
            reason = await self._prove(session)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lost, name="kepm.link.lost")
            if self._options.echo_topic is not None:
                tasks.start_soon(prove, name="kepm.link.echo")
        return reason

    async def _prove(self, session: Session) -> str:
        """Send an echo at once, later when nothing else comes; return when one is missed that should have come."""
        missed = 0
        while True:
            came, late = await self._echo(session)
            if came and self._proven is not True:
                self._proven = True
                self._observer.proof(True)
            elif not came and self._proven is None:
                self._proven = False
                self._observer.proof(False)
            # A loop that was blocked, or a machine that slept, has missed nothing: it gets a second try.
            missed = 0 if came else missed + (not late)
            if missed and self._proven:
                return "the echo did not come back"
            heard = self._now() if came else self._heard
            while (rest := self._options.quiet - (self._now() - max(heard, self._heard))) > 0:  # noqa: ASYNC110
                await anyio.sleep(rest)  # What is received meanwhile puts it off; waking for each would cost more.

    async def _echo(self, session: Session) -> tuple[bool, bool]:
        """Send one echo; tell whether it came back, and whether our own clock made the answer worthless."""
        self._nonce, self._echoed = uuid4().hex.encode(), anyio.Event()
        sent = self._now()
        with suppress(LinkLost):
            # QoS 0: a broker with 20 messages unacknowledged delivers no further one at QoS 1.
            session.publish(Publication(self._options.echo_topic or "", self._nonce, qos=0))
        with anyio.move_on_after(self._options.echo_timeout):
            await self._echoed.wait()
        late = self._now() - sent > self._options.echo_timeout + self._options.tick
        return self._echoed.is_set(), late


@dataclass(frozen=True, slots=True)
class _Served:
    connected: bool
    reason: str
    ended: float
