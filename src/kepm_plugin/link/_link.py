"""The state machine: connect, subscribe, watch, and restore what was lost until the budget is spent."""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random

import anyio
from msgspec import Struct

from ..errors import AgentError, BrokerRefused, LinkLost
from ..eventloop import loop_clock, shared_wait
from ..message import Received
from ..plugin import Gap
from ..suspension import Suspension
from ._echo import MISSED, Prover
from ._history import History
from ._options import LinkOptions
from ._session import Connector, Ending, Observer, Session
from ._takeover import FIRST_WAIT, HELD, LONGEST_WAIT, SOON, Takeovers
from ._waits import Waits, delays

SUSPENDED = "suspended"
"""Reason of a gap that a sleep of the machine, or a pause of the process, has made."""

LATE = 2
"""By so many ticks everything must be late to count as a sleep."""

LOOK = 1.0
"""Seconds of a long wait after which it is looked whether we are still wanted."""


class _Away(Struct):
    """Why and since when there is no session, how much of the budget is spent, and how often it was tried."""

    since: float
    reason: str
    waits: Waits
    spent: float = 0.0
    attempts: int = 0


class _Served(Struct, frozen=True):
    """What became of one attempt; `lived` is from CONNACK on, None without it, `met` whether a broker was there."""

    up: bool
    reason: str
    ended: float
    lived: float | None
    ending: Ending = "broken"
    met: bool = True
    slept: bool = False


class Link:
    """Keeps the session up until the budget for restoring it is spent."""

    def __init__(
        self,
        connect: Connector,
        observer: Observer,
        options: LinkOptions,
        history: History | None = None,
        random: Random | None = None,
        asleep: Callable[[], float] | None = None,
    ) -> None:
        """Prepare; `asleep` counts the seconds that the machine was suspended."""
        self._connect, self._observer, self._options = connect, observer, options
        self._history = history or History()
        self._random = random or Random()  # noqa: S311  jitter, no secret
        self._awake = awake = loop_clock()
        slept = asleep or Suspension()
        self._now: Callable[[], float] = lambda: awake() + slept()
        self._prover = Prover(
            options.echo_topic or "", options.quiet, options.echo_timeout, self._now, awake, observer.proof
        )
        self._ticked = 0.0
        self._slept_at = -math.inf
        self._takeovers = self._no_takeovers()
        self._version = self._certificate = ""
        self.budget = options.budget
        """Seconds for which a lost link is restored; another value counts at the end of the next attempt."""
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
            away.attempts += 1
            self._history.note("connecting", away.reason)
            served = await self._session(away)
            took = 0.0
            if not served.up:
                took = self._now() - started
                if self._spend(away, took, self._options.attempt):
                    took = 0.0
            else:
                away = _Away(
                    served.ended, SUSPENDED if served.slept else served.reason, self._waits_after(served, away)
                )
            slowly = self._look_for_takeover(served)
            asked = self._now()
            await self._observer.down(served.reason)
            self._spend(away, self._now() - asked, self._options.attempt)
            if away.spent >= self.budget:
                self._history.note("budgetSpent", served.reason)
                raise LinkLost(
                    f"the link to the broker could not be restored within {self.budget:g} s "
                    f"({served.reason}); the process ends so that the agent restarts it"
                )
            if slowly is None:
                await self._wait(away, self._random.uniform(0, away.waits.after(took, away.spent)))
            else:
                await self._wait_long(self._random.uniform(0, slowly))

    def echo(self, received: Received) -> None:
        """Take what came on the echo's topic."""
        self._prover.take(received)

    # --- between sessions ---------------------------------------------------------------------------------------------

    def _waits(self) -> Waits:
        return Waits(self._options)

    def _waits_after(self, served: _Served, away: _Away) -> Waits:
        if served.ending == "closed":
            # Whether the broker can be reached right now tells its end from a takeover.
            return Waits(self._options, at_once=True)
        # One that breaks as soon as it began does not make us hurry.
        brief = served.lived is not None and served.lived <= self._options.max_delay
        return away.waits if brief else self._waits()

    async def _wait(self, away: _Away, seconds: float) -> None:
        """Wait, but not beyond a sleep of the machine, and look meanwhile whether we are still wanted."""
        while True:
            paused, part = self._now(), min(seconds, LOOK)
            await anyio.sleep(part)
            slept = self._spend(away, self._now() - paused, part)
            seconds -= part
            if slept or seconds <= 0 or away.spent >= self.budget:
                return
            self._observer.beat(False)

    async def _wait_long(self, seconds: float) -> None:
        """Wait, of our own will and so not from the budget, and have it looked whether we are still wanted."""
        end = self._now() + seconds
        while (rest := end - self._now()) > 0:
            await anyio.sleep(min(rest, LOOK))
            self._observer.beat(False)

    def _spend(self, away: _Away, elapsed: float, expected: float) -> bool:
        """Take time from the budget; after a sleep of the machine, which is told, everything starts anew."""
        if elapsed <= expected + LATE * self._options.tick:
            away.spent += elapsed
            return False
        self._resumed(elapsed)
        away.reason, away.waits, away.spent = SUSPENDED, self._waits(), 0.0
        return True

    def _resumed(self, seconds: float) -> None:
        self._history.note("resumed", f"about {seconds:.0f} s had passed unseen")

    def _no_takeovers(self) -> Takeovers:
        return Takeovers(delays(FIRST_WAIT, LONGEST_WAIT))

    def _look_for_takeover(self, served: _Served) -> float | None:
        """Return the upper bound of the wait where another client uses our client id."""
        if served.lived is None:
            if not served.met:
                self._takeovers.away()
            return None
        bound = self._takeovers.ended(served.ending, served.lived)
        if bound is not None:
            self._history.note("takenOver", self._takeovers.reason)
            self._observer.taken_over(self._takeovers.reason)
        return bound

    # --- one session --------------------------------------------------------------------------------------------------

    async def _session(self, away: _Away) -> _Served:
        early: list[Received] = []
        current: Session | None = None

        def deliver(batch: Sequence[Received]) -> None:
            # A kept session delivers right behind CONNACK, before the connector has handed the session over.
            if current is None:
                early.extend(batch)
            else:
                self._received(batch, current)

        session: Session | None = None
        began = 0.0
        up = slept = met = False
        try:
            async with self._connect(deliver) as session:
                began = self._now()
                self._look_at(session)
                if filters := self._options.filters():
                    await session.subscribe(filters, self._options.qos)
                up = True
                self._history.note(
                    "up", mqtt=session.version, sessionPresent=session.session_present, attempts=away.attempts
                )
                await self._observer.up(session, self._gap(away, session))
                current = session
                self._received(early, session)
                reason = await self._watch(session)
                slept = self._has_slept()
                self._lost(reason)
        except AgentError as exc:
            reason = str(exc)
            # A broker that listens and closes before CONNACK is there, as when another client was quicker.
            met = isinstance(exc.__cause__, LinkLost)
            self._history.note("refused" if isinstance(exc, BrokerRefused) else "lost" if up else "failed", reason)
        if session is None:
            return _Served(up, reason, self._now(), None, met=met)
        ended = self._now()
        return _Served(up, reason, ended, ended - began, session.ending, slept=slept)

    def _look_at(self, session: Session) -> None:
        """Note what is another than with the session before."""
        if session.version != self._version and session.version == "3.1.1":
            self._history.note("fallenBack", "the broker refused MQTT 5")
        if self._certificate and session.certificate != self._certificate:
            self._history.note("certificateChanged", f"{self._certificate[:16]} became {session.certificate[:16]}")
        self._version, self._certificate = session.version, session.certificate

    def _gap(self, away: _Away, session: Session) -> Gap | None:
        """Return what the session ends, if it is not the first."""
        self.connects += 1
        if self.connects == 1:
            return None
        return Gap(seconds=self._now() - away.since, reason=away.reason, session_present=session.session_present)

    def _lost(self, reason: str) -> None:
        if reason == MISSED:
            self._history.note("echoMissed", f"no echo within {self._options.echo_timeout:g} s, and nothing else")
        self._history.note("lost", reason)

    def _received(self, batch: Sequence[Received], session: Session) -> None:
        self._prover.heard = self._now()
        self._observer.received(batch, session)

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
                tasks.start_soon(until, partial(self._prover.missed, session), name="kepm.link.echo")
        return reason

    async def _tick(self) -> None:
        """Look at the clock; what is late by two ticks has slept."""
        since = self._now()
        while True:
            self._observer.beat(True)
            await anyio.sleep(shared_wait(self._awake(), self._options.tick))
            self._has_slept()
            self._ticked = self._now()
            if self._ticked - since >= SOON:
                self._history.held()
            if self._ticked - since >= HELD and self._takeovers.reason:
                self._takeovers = self._no_takeovers()
                self._observer.taken_over(None)

    def _has_slept(self) -> bool:
        """Tell whether the machine has just slept: what the broker makes of that shows a little later."""
        now, tick = self._now(), self._options.tick
        if now - self._ticked > tick + LATE * tick:
            self._resumed(now - self._ticked)
            self._slept_at = self._ticked = now
            self._prover.hurry()
        return now - self._slept_at <= self._options.echo_timeout + LATE * tick
