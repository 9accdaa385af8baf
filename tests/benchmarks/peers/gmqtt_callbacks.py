"""Callbacks of gmqtt."""

import asyncio
import json
from importlib import import_module
from typing import Any

from ..meter import Meter
from ..order import Order
from ..payload import FILTER

gmqtt: Any = import_module("gmqtt")  # Not installed where the checkers run.


async def receive(order: Order) -> None:
    """Receive until this process is ended."""
    meter = Meter(order.burst)

    def on_message(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
        json.loads(payload)
        meter.message()
        return 0

    client = gmqtt.Client("gmqtt")
    client.on_message = on_message
    await client.connect(order.host, order.port, ssl=order.context() or False)
    client.subscribe(FILTER, qos=order.qos)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(receive(Order.read()))
