"""Ours, receiving: a typed payload, routed to a handler."""

from kepm_plugin import Handler, Message, Plugin

from ..event import Event
from ..meter import Meter
from ..order import Order
from ..payload import topics
from .plain_wire import without_tls

ORDER = Order.read()
METER = Meter(ORDER.burst)

if not ORDER.tls:
    without_tls(ORDER.port)


class Bench(Plugin):
    """Receives."""

    id = "Bench"
    qos = ORDER.qos
    journal = ORDER.journal


class Report(Handler[Bench]):
    """Takes events."""

    async def handle(self, message: Message[Event]) -> None:
        METER.message()


def _register(topic: str) -> None:
    @Bench.topic(topic)
    class Reported(Report):
        """Takes the events of one topic."""


if ORDER.handlers:
    for each in topics(ORDER.handlers):
        _register(each.removeprefix("Bench/"))
else:
    _register("Events/{host}")


if __name__ == "__main__":
    Bench.main()
