"""fastapi-mqtt, which is gmqtt with handlers by topic; without the application around it."""

import asyncio
import json
from importlib import import_module
from typing import Any

from ..meter import Meter
from ..order import Order
from ..payload import FILTER

fastapi_mqtt: Any = import_module("fastapi_mqtt")  # Not installed where the checkers run.


async def receive(order: Order) -> None:
    """Receive until this process is ended."""
    meter = Meter(order.burst)

    async def on_event(client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> None:
        json.loads(payload)
        meter.message()

    config = fastapi_mqtt.MQTTConfig(host=order.host, port=order.port, ssl=order.context() or False)
    app = fastapi_mqtt.FastMQTT(config=config, client_id="fastapi-mqtt")
    app.subscribe(FILTER, qos=order.qos)(on_event)
    await app.mqtt_startup()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(receive(Order.read()))
