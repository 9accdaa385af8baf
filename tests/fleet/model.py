"""A fleet in a model: many plugins lose their broker at one moment, and come back when it does. Nothing sleeps.

One machine has them all, and so their work waits for its processors. An attempt to connect is work of the plugin's,
then of the broker's, which takes connections one by one, or all at once by turns; once connected, a plugin has more to
do, and its settings to ask for. While the broker is away an attempt is refused at once. One that takes too long is
given up; the broker does its work all the same, as it finds out only then. A queue that is full takes nobody: TCP tries
again after a second, then after two more.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from kepm_plugin.broker import SessionOptions
from kepm_plugin.link import LinkOptions
from tests.fleet.strategies import After, Strategy

GIVEN_UP: Final = SessionOptions(client_id="").connect_timeout
"""Seconds after which an attempt is given up."""
SYN_AGAIN: Final = (1.0, 2.0, 4.0)
"""Seconds between the attempts of TCP itself."""
END: Final = LinkOptions(filters=tuple).budget
"""Seconds after the broker's return at which the model ends: whoever still waits gives up, and its process ends."""

Event = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of a processor: by default what docs/fleet.md has; `tests/fleet/real.py` measures them."""

    refused: float = 0.0019
    """A plugin's, for an attempt that meets nobody, asking the agent's API in vain included."""
    connect: float = 0.0054
    """A plugin's, from TCP to the subscription."""
    after: float = 0.0040
    """A plugin's, for what follows: its status, and its settings."""
    broker: float = 0.0008
    """The broker's, for one connection."""
    api: float = 0.0010
    """The agent's API's, for what a plugin asks after its reconnect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it happens."""

    costs: Costs = Costs()
    processors: float = 2.0
    """How many there are for all this."""
    backlog: int = 100
    """Connections that wait for a broker that takes them one by one; more are not taken."""
    at_once: bool = False
    """The broker takes all that come, and gives each its turn: none is done before nearly all are."""


@dataclass(slots=True)
class Outcome:
    """What became of it. Times are in seconds after the broker's return."""

    plugins: int
    served: list[float] = field(default_factory=list[float])
    attempts: list[float] = field(default_factory=list[float])
    refused: int = 0
    given_up: int = 0
    work: float = 0.0
    """Seconds of processors, of all, from the loss on."""

    @property
    def last(self) -> float:
        """When the last one served; infinite where one never did."""
        return max(self.served) if len(self.served) == self.plugins else float("inf")

    @property
    def median(self) -> float:
        """When half of them served."""
        return sorted(self.served)[len(self.served) // 2] if self.served else float("inf")

    def peak(self, window: float = 0.1) -> float:
        """Return the most attempts per second with a broker there, over `window` seconds."""
        most, recent = 0, deque[float]()
        for at in self.attempts:
            recent.append(at)
            while recent[0] <= at - window:
                recent.popleft()
            most = max(most, len(recent))
        return most / window


class _Clock:
    """What happens when."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._events: list[tuple[float, int, Event]] = []
        self._numbers = count()

    def after(self, seconds: float, event: Event) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()


class _Queue:
    """Work that is done in the order in which it came, so much at a time."""

    def __init__(self, clock: _Clock, servers: int, speed: float = 1.0) -> None:
        self._clock, self._free, self._speed = clock, servers, speed
        self._waiting: deque[tuple[float, Event]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def work(self, seconds: float, then: Event) -> None:
        """Do so much, then something."""
        self._waiting.append((seconds / self._speed, then))
        self._next()

    def _next(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            seconds, then = self._waiting.popleft()
            self._clock.after(seconds, lambda then=then: self._done(then))  # type: ignore[misc]

    def _done(self, then: Event) -> None:
        self._free += 1
        then()
        self._next()


class _Turns:
    """Work that is done all at once: each has its share, so that what is left of each shrinks by the same."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._done, self._since, self._change = 0.0, clock.now, 0
        self._ends: list[tuple[float, int, Event]] = []
        """By how much of each has to be done in all, from the beginning."""
        self._numbers = count()

    def __len__(self) -> int:
        return 0  # Nobody waits outside.

    def work(self, seconds: float, then: Event) -> None:
        """Do so much, then something."""
        self._advance()
        heapq.heappush(self._ends, (self._done + seconds, next(self._numbers), then))
        self._look_ahead()

    def _advance(self) -> None:
        if self._ends:
            self._done += (self._clock.now - self._since) / len(self._ends)
        self._since = self._clock.now

    def _look_ahead(self) -> None:
        self._change += 1
        if self._ends:
            change, rest = self._change, self._ends[0][0] - self._done
            self._clock.after(max(rest, 0.0) * len(self._ends), lambda: self._next(change))

    def _next(self, change: int) -> None:
        if change != self._change:  # More has come meanwhile.
            return
        self._advance()
        _, _, then = heapq.heappop(self._ends)
        then()
        self._look_ahead()


class _World:
    """The broker, the machine, and what is noted."""

    def __init__(self, place: Place, plugins: int, outage: float) -> None:
        self.place, self.clock, self.outcome = place, _Clock(-outage), Outcome(plugins)
        whole = max(1, int(place.processors))
        self.machine = _Queue(self.clock, whole, place.processors / whole)
        self.broker: _Queue | _Turns = _Turns(self.clock) if place.at_once else _Queue(self.clock, 1)
        self.api = _Queue(self.clock, 1)


class _Plugin:
    """One of them: tries, waits, tries again."""

    def __init__(self, world: _World, wait: After) -> None:
        self._world, self._wait = world, wait
        self._lost, self._began, self._attempt = world.clock.now, 0.0, 0

    def attempt(self) -> None:
        """Try to connect."""
        world = self._world
        self._began = world.clock.now
        self._attempt += 1
        if world.clock.now < 0:
            self._work(world.place.costs.refused, self._refused)
            return
        world.outcome.attempts.append(world.clock.now)
        this = self._attempt
        world.clock.after(GIVEN_UP, lambda: self._give_up(this))
        self._work(world.place.costs.connect, lambda: self._reach(this, iter(SYN_AGAIN)))

    def _work(self, seconds: float, then: Event) -> None:
        self._world.outcome.work += seconds
        self._world.machine.work(seconds, then)

    def _refused(self) -> None:
        self._world.outcome.refused += 1
        self._again()

    def _reach(self, this: int, syn_again: Iterator[float]) -> None:
        world = self._world
        if this != self._attempt:
            return
        if len(world.broker) >= world.place.backlog:
            world.clock.after(next(syn_again), lambda: self._reach(this, syn_again))
            return
        world.outcome.work += world.place.costs.broker
        world.broker.work(world.place.costs.broker, lambda: self._connected(this))

    def _connected(self, this: int) -> None:
        if this == self._attempt:  # Else the broker finds nobody there any more.
            self._attempt += 1
            self._world.outcome.served.append(self._world.clock.now)
            costs = self._world.place.costs
            self._work(costs.after, lambda: self._world.api.work(costs.api, lambda: None))

    def _give_up(self, this: int) -> None:
        if this == self._attempt:
            self._world.outcome.given_up += 1
            self._again()

    def _again(self) -> None:
        clock, self._attempt = self._world.clock, self._attempt + 1
        clock.after(self._wait(clock.now - self._began, clock.now - self._lost), self.attempt)


def simulate(plugins: int, strategy: Strategy, place: Place, *, outage: float, seed: int) -> Outcome:
    """Play an outage of so many seconds; the same seed gives the same outcome."""
    world = _World(place, plugins, outage)
    for number in range(plugins):
        world.clock.after(0.0, _Plugin(world, strategy(Random(seed * 1_000_003 + number))).attempt)  # noqa: S311  jitter
    world.clock.run(END)
    return world.outcome
