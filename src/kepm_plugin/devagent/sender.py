"""Sends a command to a plugin and waits for its response: the agent's own small MQTT 3.1.1 client on the engine."""

import asyncio
import json
import secrets
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import Any

from kepm_plugin.contract import COMMANDS_LEVEL, RESPONSES_LEVEL
from kepm_plugin.devagent.bodies import Connect, Publish, Subscribe, disconnect, read_connack
from kepm_plugin.devagent.engine import Engine
from kepm_plugin.devagent.likeness import Likeness
from kepm_plugin.devagent.packets import CONNACK, PUBACK, PUBLISH, SUBACK, V311, Packet, Splitter, acknowledgement
from kepm_plugin.errors import LinkLost


def command_topic(plugin_id: str, command: str) -> str:
    """Return where a command is published: `MyWorker/Commands/scan` (Plugin Cmd-Resp)."""
    return f"{plugin_id}/{COMMANDS_LEVEL}/{command}"


def commands(plugin_id: str, subscribed: Iterable[str]) -> list[str]:
    """Return the commands among what a plugin is subscribed to, as they follow `<Id>/Commands/`."""
    prefix = command_topic(plugin_id, "")
    return sorted(name.removeprefix(prefix) for name in subscribed if name.startswith(prefix))


def unknown_command(plugin_id: str, command: str, known: Sequence[str]) -> str:
    """Return the words for a command that a plugin does not have."""
    bare = command.removeprefix(f"{plugin_id}/").removeprefix(f"{COMMANDS_LEVEL}/")
    if bare != command:
        return f"no command {command!r} of {plugin_id}: leave out {command.removesuffix(bare)!r}, give {bare!r}"
    near = get_close_matches(command, known, n=1)
    meant = f"; {near[0]} is meant?" if near else ""
    return f"no command {command!r} of {plugin_id}; it has: {', '.join(known)}{meant}"


class EngineClient:
    """A connection of the agent itself to its engine. Not for concurrent use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._splitter = Splitter()
        self._packets: list[Packet] = []
        self._mid = 0

    async def expect(self, kind: int) -> Packet:
        """Return the next packet of a kind; others are passed over, publications acknowledged.

        Raises:
            LinkLost: The engine closed the connection.
        """
        while True:
            while self._packets:
                packet = self._packets.pop(0)
                if packet.kind == PUBLISH and (mid := Publish.read(packet, V311).mid):
                    self._writer.write(acknowledgement(PUBACK, mid))
                if packet.kind == kind:
                    return packet
            data = await self._reader.read(65536)
            if not data:
                raise LinkLost("the engine ended meanwhile; it is started again, send once more")
            self._packets = self._splitter.feed(data)

    async def subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1 and return when the engine has granted it."""
        self._mid += 1
        self._writer.write(Subscribe(self._mid, ((topic, 1),)).encode(V311))
        await self.expect(SUBACK)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1 without waiting for the acknowledgement."""
        self._mid += 1
        self._writer.write(Publish(topic, payload, 1, retain, mid=self._mid).encode(V311))

    async def received(self) -> Publish:
        """Return the next publication."""
        return Publish.read(await self.expect(PUBLISH), V311)


@asynccontextmanager
async def engine_client(engine: Engine) -> AsyncGenerator[EngineClient]:
    """Connect to the engine for the time of the block.

    Raises:
        LinkLost: It went away.
    """
    await engine.wait_up()
    try:
        reader, writer = await engine.connect()
        connect = Connect(level=V311, client_id=f"dev-agent-{secrets.token_hex(6)}").with_credential(engine.credential)
        writer.write(connect.encode())
        client = EngineClient(reader, writer)
        try:
            _, code = read_connack(await client.expect(CONNACK))
            if code:
                raise LinkLost(f"the engine refused the agent itself with code {code}")
            yield client
        finally:
            writer.write(disconnect())
            writer.close()
    except OSError as exc:
        raise LinkLost("the engine ended meanwhile; it is started again, send once more") from exc


async def send_command(
    engine: Engine, plugin_id: str, command: str, payload: Mapping[str, Any], like: Likeness
) -> dict[str, Any]:
    """Publish a command and return its final response.

    The caller bounds the time.

    Raises:
        LinkLost: The engine went away meanwhile.
    """
    wanted = payload.get(like.correlation) or str(uuid.uuid4())
    body = json.dumps({**payload, like.correlation: wanted}).encode()
    async with engine_client(engine) as client:
        await client.subscribe(f"{plugin_id}/{RESPONSES_LEVEL}/{command}")
        client.publish(command_topic(plugin_id, command), body)
        while True:
            answer = _object((await client.received()).payload)
            interim = like.answer_progress in answer and like.answer_ok not in answer
            if answer.get(like.correlation) == wanted and not interim:
                return answer


def _object(payload: bytes) -> dict[str, Any]:
    """Return a JSON object, empty where the payload is none."""
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}  # pyright: ignore[reportUnknownVariableType]
