"""Ours, publishing at QoS 1, one call after the other."""

from kepm_plugin import Plugin, Publisher, background

from ..event import Event
from ..meter import Span
from ..order import Order
from ..payload import EVENT

ORDER = Order.read()


class Bench(Plugin):
    """Publishes."""

    id = "Bench"
    sent = Publisher[Event]("Sent/{host}", qos=1)

    @background()
    async def report(self) -> None:
        """Publish, and tell what it took."""
        await self._report(ORDER.warm_up)
        span = Span()
        await self._report(ORDER.count)
        span.end(ORDER.count)

    async def _report(self, count: int) -> None:
        event = Event(**EVENT)
        for _ in range(count - 1):
            await self.sent.publish(event, host="web-01")
        # The broker acknowledges in order (MQTT 5.0, section 4.6).
        await self.sent.publish(event, wait="acknowledged", host="web-01")


if __name__ == "__main__":
    Bench.main()
