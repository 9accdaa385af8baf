"""Raw callbacks of paho, on its own loop."""

import json
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from ..meter import Meter
from ..order import Order
from ..payload import FILTER


def receive(order: Order) -> None:
    """Receive until this process is ended."""
    meter = Meter(order.burst)

    def on_message(client: Client, userdata: Any, message: MQTTMessage) -> None:
        json.loads(message.payload)
        meter.message()

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = on_message
    if (context := order.context()) is not None:
        client.tls_set_context(context)  # pyright: ignore[reportUnknownMemberType]
    client.connect(order.host, order.port)
    client.subscribe(FILTER, order.qos)
    client.loop_forever()


if __name__ == "__main__":
    receive(Order.read())
