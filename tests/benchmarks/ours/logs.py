"""Ours, logging by structlog while it is connected."""

import anyio
import structlog

from kepm_plugin import Plugin, Publisher, background

from ..log_calls import call
from ..order import Order

ORDER = Order.read()


class Bench(Plugin):
    """Logs."""

    id = "Bench"
    ready = Publisher[bool]("Ready", qos=1)

    @background()
    async def speak(self) -> None:
        """Log, once connected."""
        await self.ready.publish(True, wait="acknowledged")
        await call(structlog.get_logger("bench"), ORDER.warm_up, ORDER.count, anyio.sleep)


if __name__ == "__main__":
    Bench.main()
