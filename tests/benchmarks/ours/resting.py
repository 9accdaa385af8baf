"""Ours as it is by default, with one handler: for starting, and for being at rest."""

from kepm_plugin import Handler, Message, Plugin

from ..event import Event
from ..order import Order


class Bench(Plugin):
    """Waits for events."""

    id = f"Bench{Order.read().copy or ''}"


@Bench.topic("Events/{host}")
class Report(Handler[Bench]):
    """Takes events."""

    async def handle(self, message: Message[Event]) -> None:
        """Nothing comes."""


if __name__ == "__main__":
    Bench.main()
