"""What a user writes by hand on aiomqtt and httpx: the calls that ours makes from its start until it serves."""

import asyncio
import json

import aiomqtt
import httpx

from ..order import Order, unverified


async def main(order: Order) -> None:
    """Read the settings, connect, subscribe, say so, and wait for events."""
    async with httpx.AsyncClient(base_url=order.api, verify=unverified()) as http:
        (await http.get("/api/PluginSettings/Hand")).raise_for_status()
        system = (await http.get("/api/PluginSettings/KeeperPrivilegeManager")).raise_for_status().json()
        client = aiomqtt.Client(
            system["broker.host"],
            int(system["broker.port"]),
            identifier="Hand",
            tls_context=unverified(),
            will=aiomqtt.Will("Hand/Status", json.dumps({"state": "disconnected"}), qos=1, retain=True),
        )
        async with client:
            await client.subscribe("Hand/Events/+", qos=1)
            await client.publish("Hand/Status", json.dumps({"state": "running"}), qos=1, retain=True)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                json.loads(message.payload)


if __name__ == "__main__":
    asyncio.run(main(Order.read()))
