"""What is counted: the ways that every message, publication and log call takes, and what must not grow."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

import anyio

from kepm_plugin.message import Publication, decoder
from kepm_plugin.outbox import Outbox
from kepm_plugin.topics import Router
from tests.budget.counter import Steps, counted
from tests.budget.memory import PAYLOAD, Burst, Bursts, Event, in_memory
from tests.budget.reference import reference
from tests.budget.wire import on_the_wire

FEW, MANY = 20, 80
"""A path is counted for bursts of these sizes; both are whole windows of the broker, and fit in one record of TLS."""
FILTERS: Final = 1_000
HANDLERS: Final = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """Steps of one message: of the framework's own code, and of what is below it."""

    ours: float
    libraries: float
    functions: dict[str, float]


async def per_message(burst: Burst, few: int = FEW, many: int = MANY) -> Cost:
    """Return what each of `many - few` messages costs: what a burst takes apart from them is in both, and goes."""
    await burst(FEW)  # What is done once is done.
    first = await burst(few)
    found, count = await burst(many) - first, many - few
    functions = {name: steps / count for name, steps in found.by_function().items() if steps > 0}
    return Cost(found.total(True) / count, found.total(False) / count, functions)


Opened = Callable[[], AbstractAsyncContextManager[Burst]]


@asynccontextmanager
async def _plain(function: Callable[[], object]) -> AsyncGenerator[Burst]:
    async def burst(count: int) -> Steps:
        with counted() as steps:
            for _ in range(count):
                function()
        return steps

    yield burst


def _routing(filters: int, *, anew: bool = True) -> AbstractAsyncContextManager[Burst]:
    """Route a topic that did not come before, or one that did."""
    router = Router((f"Measured/Events/t{number:04}/+", number) for number in range(filters))
    numbers = count()
    return _plain(lambda: router.find(f"Measured/Events/t0000/web-{next(numbers) if anew else 0:02}"))


@asynccontextmanager
async def _memory(
    way: Callable[..., Awaitable[Steps]], *, handlers: int = 1, journal: bool = True, kept: int = 0, **how: Any
) -> AsyncGenerator[Burst]:
    async with in_memory(handlers=handlers, journal=journal, kept=kept) as bursts:
        yield partial(way, bursts, **how)


async def _for_all(bursts: Bursts, count: int, **how: Any) -> Steps:
    return await bursts.receive(count, handlers=MANY, **how)


@asynccontextmanager
async def _wire(publishing: bool = False, **how: Any) -> AsyncGenerator[Burst]:
    async with on_the_wire() as wired:
        yield wired.publish if publishing else partial(wired.receive, **how)


@asynccontextmanager
async def _reference() -> AsyncGenerator[Burst]:
    async def burst(count: int) -> Steps:
        with counted() as steps:
            reference(count)
        return steps

    yield burst


class _Mute:
    """A session that acknowledges nothing by itself."""

    in_flight_maximum = 20

    def __init__(self) -> None:
        self.sent: list[Callable[[], None]] = []

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        if acknowledged is not None:
            self.sent.append(acknowledged)


@asynccontextmanager
async def _pending(pending: int, *, acknowledging: bool = False) -> AsyncGenerator[Burst]:
    """Publish while so many wait for the broker, or have it acknowledge some of them."""
    session, outbox = _Mute(), Outbox()
    outbox.attach(session)
    for _ in range(pending):
        outbox.put_soon(Publication("Measured/Findings/low", PAYLOAD))

    async def burst(count: int) -> Steps:
        with counted() as steps:
            for _ in range(count):
                if acknowledging:
                    session.sent.pop(0)()
                else:
                    outbox.put_soon(Publication("Measured/Findings/low", PAYLOAD))
        return steps

    yield burst


REFERENCE: Final[Opened] = _reference

PATHS: Final[dict[str, Opened]] = {
    "routing a topic": partial(_routing, FILTERS),
    "routing a topic that came before": partial(_routing, FILTERS, anew=False),
    "decoding a payload": lambda: _plain(partial(decoder(Event), PAYLOAD)),
    "reading a message, QoS 0": partial(_wire, qos=0),
    "reading and acknowledging a message, QoS 1": _wire,
    "handling a message, QoS 0": partial(_memory, Bursts.receive, journal=False, qos=0),
    "handling a message, QoS 1": partial(_memory, Bursts.receive, journal=False),
    "handling a message, QoS 1, with the journal": partial(_memory, Bursts.receive),
    "handling a message, each for another handler": partial(_memory, _for_all, journal=False, qos=0, handlers=MANY),
    "publishing": partial(_memory, Bursts.publish),
    "publishing from any thread": partial(_memory, Bursts.publish_soon),
    "writing a publication, and reading its acknowledgement": partial(_wire, publishing=True),
    "a log call that says nothing": partial(_memory, Bursts.log, level="debug"),
    "a log call": partial(_memory, Bursts.log),
    "sending a log record": partial(_memory, Bursts.send_records),
}
"""Each has a budget."""


@dataclass(frozen=True, slots=True)
class Flat:
    """What costs the same, however much there is beside it: bursts between the same sizes, or beyond others."""

    little: Opened
    much: Opened
    little_at: tuple[int, int] = (FEW, MANY)
    much_at: tuple[int, int] = (FEW, MANY)

    async def costs(self) -> tuple[Cost, Cost]:
        """Return both."""
        return await cost(self.little, *self.little_at), await cost(self.much, *self.much_at)


_HELD: Final = partial(_memory, Bursts.receive, held=True)

FLAT: Final[dict[str, Flat]] = {
    "routing, 1 filter and 1,000": Flat(partial(_routing, 1), partial(_routing, FILTERS)),
    "routing what came before, 1 filter and 1,000": Flat(
        partial(_routing, 1, anew=False), partial(_routing, FILTERS, anew=False)
    ),
    "a message for one of 1 and of 200 handlers": Flat(
        partial(_memory, Bursts.receive, journal=False, qos=0),
        partial(_memory, Bursts.receive, journal=False, qos=0, handlers=HANDLERS),
    ),
    "a message behind 20 and behind 400 others": Flat(
        partial(_HELD, journal=False, qos=0), partial(_HELD, journal=False, qos=0), much_at=(400, 460)
    ),
    "a message behind no and behind 300 others that lie in the journal alone": Flat(
        partial(_HELD, kept=100), partial(_HELD, kept=100), (100, 200), (400, 500)
    ),
    "publishing while 100 and while 5,000 wait": Flat(partial(_pending, 100), partial(_pending, 5_000)),
    "an acknowledgement while 300 and while 5,000 wait": Flat(
        partial(_pending, 300, acknowledging=True), partial(_pending, 5_000, acknowledging=True)
    ),
}
"""What has to be flat."""


async def cost(opened: Opened, few: int = FEW, many: int = MANY) -> Cost:
    """Count a path."""
    with anyio.fail_after(60):
        async with opened() as burst:
            return await per_message(burst, few, many)
