"""The loop that a user writes by hand on aiomqtt."""

import asyncio
import json

import aiomqtt

from ..meter import Meter
from ..order import Order
from ..payload import FILTER


async def receive(order: Order) -> None:
    """Receive until this process is ended."""
    meter = Meter(order.burst)
    async with aiomqtt.Client(order.host, order.port, tls_context=order.context()) as client:
        await client.subscribe(FILTER, qos=order.qos)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            json.loads(message.payload)
            meter.message()


if __name__ == "__main__":
    asyncio.run(receive(Order.read()))
