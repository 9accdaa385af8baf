"""aiomqtt, publishing at QoS 1 with 20 calls in flight."""

import asyncio
import json
from collections.abc import Iterator

import aiomqtt

from ..meter import Span
from ..order import Order
from ..payload import EVENT

IN_FLIGHT = 20


async def publish(client: aiomqtt.Client, count: int) -> None:
    """Publish so many events, and return when the broker has acknowledged them."""

    async def publish_some(numbers: Iterator[int]) -> None:
        for _ in numbers:
            await client.publish("Bench/Sent/web-01", json.dumps(EVENT), qos=1)

    numbers = iter(range(count))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(publish_some(numbers))


async def main(order: Order) -> None:
    """Publish, and tell what it took."""
    async with aiomqtt.Client(order.host, order.port, tls_context=order.context()) as client:
        await publish(client, order.warm_up)
        span = Span()
        await publish(client, order.count)
        span.end(order.count)


if __name__ == "__main__":
    asyncio.run(main(Order.read()))
