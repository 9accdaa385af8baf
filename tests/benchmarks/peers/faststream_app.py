"""FastStream's MQTT over zmqtt, with the same type as ours, decoded by msgspec; without a log line for each message."""

import asyncio
from importlib import import_module
from typing import Any

from ..event import Event
from ..meter import Meter
from ..order import Order
from ..payload import FILTER

faststream: Any = import_module("faststream")  # Not installed where the checkers run.
mqtt: Any = import_module("faststream.mqtt")
security: Any = import_module("faststream.security")
serializers: Any = import_module("fast_depends.msgspec")
zmqtt: Any = import_module("zmqtt")


def receive(order: Order) -> None:
    """Receive until this process is ended."""
    meter = Meter(order.burst)

    async def on_event(event: Event) -> None:
        meter.message()

    broker = mqtt.MQTTBroker(
        host=order.host,
        port=order.port,
        client_id="faststream",
        security=security.BaseSecurity(use_ssl=True, ssl_context=order.context()) if order.tls else None,
        serializer=serializers.MsgSpecSerializer(),
        logger=None,
    )
    broker.subscriber(FILTER, qos=zmqtt.QoS(order.qos))(on_event)
    asyncio.run(faststream.FastStream(broker, logger=None).run())


if __name__ == "__main__":
    receive(Order.read())
