"""`python -m tests.chaos.scenes.source`: publishes, and reads answers, states and echoes of the plugin.

A process that the local agent launches like any plugin, so that the gate lets it in. Its orders are on the board. What
a lost connection has left unacknowledged is published again over the next one.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

from kepm_plugin.devagent.bodies import Publish
from kepm_plugin.devagent.control_client import ControlClient
from kepm_plugin.devagent.packets import PUBACK, PUBLISH, V311, packet_id
from kepm_plugin.errors import AgentError
from tests.chaos.gate_client import GateClient, Lost, gate_client
from tests.chaos.ledger import Ledger
from tests.chaos.scenes.board import Board, Column, Slot
from tests.chaos.scenes.messages import KINDS, invent

WINDOW = 200
"""Publications that may be unacknowledged."""

IDS = 60_000
"""Packet ids are given in turn, from 1 to this."""

TICK = 0.005
"""Seconds between two looks at the orders, and at what is due by now."""

LATE = 0.1
"""Seconds that a publication may come after its time; what could not be published until then is not made up for."""

AGAIN = 0.05
"""Seconds between two attempts to connect."""

FILTERS = ("Scene/Status", "Scene/Link", "Scene/Relayed", "Scene/Responses/#")


class Source:
    """Publishes as the board says, over one connection after the other."""

    def __init__(self, client: ControlClient, board: Board, states: Ledger) -> None:
        self._client, self._board, self._states = client, board, states
        self._mid = 0
        self._unacknowledged: dict[int, tuple[int, Publish]] = {}

    async def serve(self) -> None:
        """Publish over one connection after the other, until the agent is gone."""
        while True:
            try:
                host, port = (await asyncio.to_thread(self._client.describe))["broker"]
                async with gate_client(host, port, "Source", *FILTERS) as client, asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._publish(client), name="publish")
                    await self._read(client)
            except* (Lost, OSError, AgentError):
                pass
            await asyncio.sleep(AGAIN)

    async def _read(self, client: GateClient) -> None:
        board = self._board
        while True:
            for packet in await client.packets():
                if packet.kind == PUBACK and (known := self._unacknowledged.pop(packet_id(packet), None)):
                    board.put(Column.ACKNOWLEDGED, known[0], time.monotonic_ns())
                    board[Slot.ACKNOWLEDGED] += 1
                elif packet.kind == PUBLISH:
                    self._take(client, Publish.read(packet, V311))

    def _take(self, client: GateClient, publish: Publish) -> None:
        if publish.topic == "Scene/Link":
            self._board[Slot.ECHOES] += 1
        elif publish.topic == "Scene/Status":
            self._states.note(time.monotonic_ns(), publish.payload.decode())
        else:
            content = json.loads(publish.payload)
            number = content if publish.topic == "Scene/Relayed" else int(content["correlationId"])
            self._board.put(Column.ANSWERED, number, self._board.get(Column.ANSWERED, number) + 1)
        if publish.qos:
            client.acknowledge(publish)

    async def _publish(self, client: GateClient) -> None:
        for mid, (_, publish) in self._unacknowledged.items():
            client.publish(Publish(publish.topic, publish.payload, 1, dup=True, mid=mid))
        due, before = 0.0, time.monotonic()
        while True:
            now, rate = time.monotonic(), self._board[Slot.RATE]
            due = min(due + rate * (now - before), max(1.0, rate * LATE))
            before = now
            while due >= 1 and self._board[Slot.LAST] < self._board[Slot.UNTIL]:
                if len(self._unacknowledged) >= WINDOW:
                    break
                due -= 1
                self._send(client)
            await client.drain()
            await asyncio.sleep(TICK)

    def _send(self, client: GateClient) -> None:
        board = self._board
        number, qos = board[Slot.LAST] + 1, board[Slot.QOS]
        topic, payload = invent(list(KINDS)[board[Slot.KIND]], number, board[Slot.PAUSE], board[Slot.PADDING])
        publish = Publish(topic, payload, qos, mid=self._next_mid() if qos else 0)
        if qos:
            self._unacknowledged[publish.mid] = number, publish
        board.put(Column.PUBLISHED, number, time.monotonic_ns())
        board[Slot.LAST] = number
        client.publish(publish)

    def _next_mid(self) -> int:
        self._mid = self._mid % IDS + 1
        while self._mid in self._unacknowledged:
            self._mid = self._mid % IDS + 1
        return self._mid


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with Board(given.work / "board") as board:
        source = Source(ControlClient.find(given.root), board, Ledger(given.work / "states"))
        asyncio.run(source.serve())


if __name__ == "__main__":
    main()
