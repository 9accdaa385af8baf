"""A local agent with a puppet: a launched process that carries the tests' connections as the plugin's own."""

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from kepm_plugin.devagent import DevAgent, DevOptions, dev_agent
from kepm_plugin.devagent.bodies import Connect, Publish, Suback, Subscribe, Will, disconnect, read_connack
from kepm_plugin.devagent.packets import (
    CONNACK,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    Packet,
    Splitter,
    acknowledgement,
    packet_id,
)

PUPPET = r"""
import asyncio, json, sys

async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError as e:
        print("puppet lost", type(e).__name__, flush=True)
    writer.close()

def carry(port):
    async def accepted(reader, writer):
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port or broker())
        except OSError as e:
            print("puppet got", type(e).__name__, flush=True)
            writer.close()
            return
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))
    return accepted

def broker():
    with open("appsettings.json") as file:
        return json.load(file)["MqttBrokerSettings"]["Port"]

async def main(api):
    servers = [await asyncio.start_server(carry(port), "127.0.0.1", 0) for port in (api, None)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print("puppet", *ports, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1].rpartition(":")[2])))
"""


@pytest.fixture
def anyio_backend() -> str:
    """Sockets, processes and uvicorn: asyncio."""
    return "asyncio"


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    return str(request.param)


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the list of running agents away from the developer's own."""
    monkeypatch.delenv("KEPM_DEV_AGENTS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty agent root."""
    folder = tmp_path / "agent root"
    (folder / "Plugins").mkdir(parents=True)
    return folder


def manifest(plugin_id: str = "P", **fields: Any) -> dict[str, Any]:
    """Return a valid plugin file: a Python that does nothing until it is stopped."""
    return {
        "id": plugin_id,
        "pluginType": "Executable",
        "executablePath": sys.executable,
        "arguments": "-c 'import time; time.sleep(600)'",
        "supportedPlatforms": ["Windows", "Linux", "macOS"],
        "Subscription": {"Topic": plugin_id, "Qos": 2, "CleanSession": True},
        "metadata": {
            "mqttRole": ["subscriber", "publisher"],
            "mqttTopics": {
                "publish": ["KeeperLogger", f"{plugin_id}/Responses/+", f"{plugin_id}/Status"],
                "subscribe": [f"{plugin_id}/Commands/+"],
            },
        },
        "startupPriority": 60,
        "autoStart": True,
        "executionContext": "Service",
        "requiresMonitoring": True,
        "autoRestart": True,
    } | fields


def install(root: Path, content: dict[str, Any]) -> Path:
    """Write a plugin's file."""
    path = root / "Plugins" / f"{content['id']}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def python(code: str, *arguments: str) -> str:
    """Return the `arguments` of a plugin that is a piece of Python."""
    quoted = [part.replace("'", "'\"'\"'") for part in ("-c", code, *arguments)]
    return " ".join(f"'{part}'" for part in quoted)


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds of which nothing tells: the system's processes, files, counters."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


@dataclass
class Lines:
    """What the agent wrote to its terminal."""

    seen: list[str] = field(default_factory=list[str])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, line: str) -> None:
        """Take one line."""
        self.seen.append(line)
        self._news.set()

    async def wait_for(self, text: str, *, count: int = 1) -> str:
        """Return the line that holds a text, the `count`th of them."""
        with anyio.fail_after(10):
            while len(found := [line for line in self.seen if text in line]) < count:
                await self.news()
        return found[count - 1]

    async def news(self) -> None:
        """Return when there is one more line."""
        self._news.clear()
        await self._news.wait()


class Peer:
    """A raw MQTT client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self.version = version
        self._reader, self.writer = reader, writer
        self._splitter = Splitter()
        self._packets: list[Packet] = []
        self._mid = 0

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    async def packet(self) -> Packet | None:
        """Return the next packet, None at the end of the stream."""
        with anyio.fail_after(10):
            while not self._packets:
                try:
                    data = await self._reader.read(65536)
                except OSError:
                    return None
                if not data:
                    return None
                self._packets = self._splitter.feed(data)
        return self._packets.pop(0)

    async def expect(self, kind: int) -> Packet:
        """Return the next packet, which must be of a kind."""
        packet = await self.packet()
        assert packet is not None, "the connection was closed"
        assert packet.kind == kind, packet
        return packet

    async def subscribe(self, *filters: str, qos: int = 1) -> bytes:
        """Subscribe and return the codes."""
        self._mid += 1
        self.send(Subscribe(self._mid, tuple((name, qos) for name in filters)).encode(self.version))
        answer = Suback.read(await self.expect(SUBACK), self.version)
        assert answer.mid == self._mid
        return answer.codes

    async def publish(self, topic: str, payload: bytes = b"x", *, qos: int = 1, retain: bool = False) -> bytes:
        """Publish, see it acknowledged and return the acknowledgement's body behind the packet id."""
        self._mid += 1
        self.send(Publish(topic, payload, qos, retain, mid=self._mid).encode(self.version))
        if qos == 0:
            return b""
        answer = await self.expect(PUBACK if qos == 1 else PUBREC)
        assert packet_id(answer) == self._mid
        if qos == 2:
            self.send(acknowledgement(PUBREL, self._mid))
            answer = await self.expect(PUBCOMP)
            assert packet_id(answer) == self._mid
        return answer.body[2:]

    async def message(self, *, acknowledge: bool = True) -> Publish:
        """Return the next publication and acknowledge it."""
        received = Publish.read(await self.expect(PUBLISH), self.version)
        if received.qos == 1 and acknowledge:
            self.send(acknowledgement(PUBACK, received.mid))
        if received.qos == 2 and acknowledge:
            self.send(acknowledgement(PUBREC, received.mid))
            await self.expect(PUBREL)
            self.send(acknowledgement(PUBCOMP, received.mid))
        return received

    async def closed(self) -> None:
        """Return when the other side has closed the connection; whatever comes before that is dropped."""
        while await self.packet() is not None:
            continue

    async def ping(self) -> None:
        """See the engine come round: what it did before is done, and saved."""
        self.send(Packet(PINGREQ, 0, b"").encode())
        await self.expect(PINGRESP)

    def leave(self) -> None:
        """Say DISCONNECT and close."""
        self.send(disconnect())
        self.writer.close()

    def vanish(self) -> None:
        """Close without a word."""
        self.writer.transport.abort()


def trusting() -> ssl.SSLContext:
    """Return a context that takes the agent's self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass
class Stage:
    """An agent with a puppet `P` that it launched."""

    agent: DevAgent
    lines: Lines
    api_port: int
    mqtt_port: int
    version: int
    peers: list[Peer] = field(default_factory=list[Peer])

    async def connect(
        self,
        client_id: str = "P",
        *,
        clean: bool = True,
        will: Will | None = None,
        version: int | None = None,
        properties: bytes = b"",
    ) -> tuple[Peer, bool, int]:
        """Connect as the puppet's process."""
        level = version or self.version
        if level == 5 and not clean:
            properties += b"\x11\xff\xff\xff\xff"
        connect = Connect(level=level, client_id=client_id, clean=clean, will=will, properties=properties)
        return await self.dial(self.mqtt_port, connect)

    async def dial(self, port: int, connect: Connect) -> tuple[Peer, bool, int]:
        """Connect to a port by TLS, say CONNECT, and return the peer with session-present and code of CONNACK."""
        peer = await self.raw(port, connect.level)
        peer.send(connect.encode())
        present, code = read_connack(await peer.expect(CONNACK))
        return peer, present, code

    async def raw(self, port: int | None = None, level: int = 4) -> Peer:
        """Connect by TLS only, as the puppet's process where no port is given."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.mqtt_port, ssl=trusting())
        self.peers.append(Peer(reader, writer, level))
        return self.peers[-1]

    async def peer(self, client_id: str = "P", *, clean: bool = True, will: Will | None = None) -> Peer:
        """Connect as the puppet's process, and see it accepted."""
        peer, _, code = await self.connect(client_id, clean=clean, will=will)
        assert code == 0
        return peer

    def http(self) -> httpx.AsyncClient:
        """Return an HTTPS client of the puppet's process."""
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.api_port}", verify=trusting(), timeout=5)

    def stranger(self) -> httpx.AsyncClient:
        """Return an HTTPS client of a process that the agent did not launch: this one."""
        return httpx.AsyncClient(base_url=self.agent.api_base, verify=trusting(), timeout=5)


Staged = Callable[..., Any]


@asynccontextmanager
async def staged(
    root: Path,
    broker: str,
    *,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncGenerator[Stage]:
    """Run an agent whose plugin `P` is the puppet; it may publish and subscribe what is given beside the usual."""
    content = manifest("P", arguments=python(PUPPET, "{KeeperApiBaseUrl}")) | (settings or {})
    topics = content["metadata"]["mqttTopics"]
    topics["publish"] += publish
    topics["subscribe"] += subscribe
    install(root, content)
    lines = Lines()
    chosen: dict[str, Any] = {"root": root, "broker": broker, "echo": lines, "stop_grace": 5.0}
    async with dev_agent(DevOptions(**(chosen | options))) as agent:
        _, _, api_port, mqtt_port = (await lines.wait_for("puppet ")).split()
        stage = Stage(agent, lines, int(api_port), int(mqtt_port), 5 if broker == "mosquitto" else 4)
        try:
            yield stage
        finally:
            for peer in stage.peers:
                peer.vanish()
