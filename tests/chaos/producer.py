"""`python -m tests.chaos.producer`: publishes at QoS 1 and notes what the broker acknowledged, and what was answered.

A process that the local agent launches like any plugin, so that the gate lets it in. The harness is at the other end of
a socket file: `{"publish": 100}` lets it publish so many more, `{"settle": true}` is answered when the broker has them
all. What a lost connection has left unacknowledged is published again over the next one.
"""

import argparse
import asyncio
import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

from kepm_plugin.devagent.bodies import Publish
from kepm_plugin.devagent.control_client import ControlClient
from kepm_plugin.devagent.packets import PUBACK, PUBLISH, V311, packet_id
from tests.chaos.gate_client import GateClient, Lost, gate_client
from tests.chaos.ledger import Ledger
from tests.chaos.messages import invent

WINDOW = 200
"""Publications that may be unacknowledged."""

IDS = 60_000
"""Packet ids are given in turn, from 1 to this."""

AGAIN = 0.1
"""Seconds between two attempts to connect."""


class Producer:
    """Publishes what it is allowed to, over one connection after the other."""

    def __init__(self, client: ControlClient, ledger: Ledger, random: Random, burst: int, pace: float) -> None:
        self._client, self._ledger, self._random = client, ledger, random
        self._burst, self._pace = burst, pace
        self._sent = self._allowed = self._mid = 0
        self._unacknowledged: dict[int, tuple[int, Publish]] = {}
        self._changed = asyncio.Condition()

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the harness's orders, until it is gone."""
        while line := await reader.readline():
            order: dict[str, Any] = json.loads(line)
            async with self._changed:
                self._allowed += order.get("publish", 0)
                self._changed.notify_all()
                if "settle" in order:
                    await self._changed.wait_for(lambda: not self._allowed and not self._unacknowledged)
                    writer.write(json.dumps({"sent": self._sent}).encode() + b"\n")

    async def serve(self) -> None:
        """Publish over one connection after the other."""
        while True:
            host, port = (await asyncio.to_thread(self._client.describe))["broker"]
            try:
                connection = gate_client(host, port, "Producer", "Chaos/Responses/#")
                async with connection as client, asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._publish(client), name="publish")
                    await self._read(client)
            except* (Lost, OSError):
                pass
            await asyncio.sleep(AGAIN)

    async def _read(self, client: GateClient) -> None:
        while True:
            for packet in await client.packets():
                if packet.kind == PUBACK and (known := self._unacknowledged.pop(packet_id(packet), None)):
                    self._ledger.note("a", known[0])
                elif packet.kind == PUBLISH:
                    answer = Publish.read(packet, V311)
                    self._ledger.note("r", json.loads(answer.payload)["correlationId"])
                    client.acknowledge(answer)
            async with self._changed:
                self._changed.notify_all()

    async def _publish(self, client: GateClient) -> None:
        for mid, (number, publish) in self._unacknowledged.items():
            self._note(number, publish)
            client.publish(Publish(publish.topic, publish.payload, 1, dup=True, mid=mid))
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._allowed and len(self._unacknowledged) < WINDOW)
                for _ in range(min(self._allowed, self._random.randint(1, self._burst))):
                    self._send(client)
            await client.drain()
            await asyncio.sleep(self._random.uniform(0, 2 * self._pace))

    def _send(self, client: GateClient) -> None:
        self._allowed -= 1
        self._sent += 1
        self._mid = self._mid % IDS + 1
        while self._mid in self._unacknowledged:
            self._mid = self._mid % IDS + 1
        topic, payload = invent(self._random, self._sent)
        publish = Publish(topic, payload, 1, mid=self._mid)
        self._unacknowledged[self._mid] = self._sent, publish
        self._note(self._sent, publish)
        client.publish(publish)

    def _note(self, number: int, publish: Publish) -> None:
        self._ledger.note("p", number, publish.topic, hashlib.sha256(publish.payload).hexdigest())


async def produce(given: argparse.Namespace) -> None:
    """Publish until the harness is gone."""
    client, ledger = ControlClient.find(given.root), Ledger(given.work / "produced")
    producer = Producer(client, ledger, Random(given.seed), given.burst, given.pace)  # noqa: S311  no secret
    reader, writer = await asyncio.open_unix_connection(given.work / "orders")
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(producer.serve(), name="serve")
        await producer.obey(reader, writer)
        serving.cancel()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seed")
    parser.add_argument("--burst", type=int, default=20, help="the most that is published at once")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds between two bursts, on average")
    asyncio.run(produce(parser.parse_args()))


if __name__ == "__main__":
    main()
