"""The gate before an engine that misbehaves: a scripted one, on a port of its own."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kepm_plugin.devagent.bodies import connack
from kepm_plugin.devagent.engines import Recipe, Start
from kepm_plugin.devagent.packets import PINGREQ, Packet
from tests.devagent.conftest import Stage, staged

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


@asynccontextmanager
async def scripted(root: Path, monkeypatch: pytest.MonkeyPatch, script: Script) -> AsyncGenerator[Stage]:
    """Run an agent whose engine is a script; the script gets the number of each connection after the first."""
    count = 0

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            if count > 1:  # the first one only tries whether the engine listens
                await script(reader, writer, count - 1)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = (sys.executable, "-c", "import time; time.sleep(600)")
    recipe = Recipe("nats", lambda _: Start(process, None, port, ("gate", "secret")))
    monkeypatch.setattr("kepm_plugin.devagent.running.choose", lambda *_: recipe)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    async with server, staged(root, "nats") as stage:
        yield stage


async def test_an_engine_that_closes_before_its_answer_is_asked_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        request = await reader.read(1000)
        assert b"gate" in request
        assert b"secret" in request
        if number == 3:
            writer.write(connack(4))
            await reader.read(1000)

    async with scripted(root, monkeypatch, script) as stage:
        assert (await stage.connect())[2] == 0


async def test_a_client_is_refused_when_the_engine_never_answers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.read(1000)

    async with scripted(root, monkeypatch, script) as stage:
        assert (await stage.connect())[2] == 3
        await stage.lines.wait_for("nats did not answer CONNECT")


async def test_a_refusal_of_the_engine_reaches_the_client(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.read(1000)
        writer.write(connack(4, (5, 5)))

    async with scripted(root, monkeypatch, script) as stage:
        peer, _, code = await stage.connect()
        assert code == 5
        await peer.closed()
        await stage.lines.wait_for("nats refused MQTT 3.1.1 with code 0x05")


async def test_an_engine_that_speaks_no_mqtt_costs_the_connection_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await reader.read(1000)
        writer.write(connack(4))
        await reader.read(1000)
        writer.write(b"\0\0")
        await reader.read(1000)

    async with scripted(root, monkeypatch, script) as stage:
        peer, _, code = await stage.connect()
        assert code == 0
        peer.send(Packet(PINGREQ, 0, b"").encode())
        await peer.closed()
        await stage.lines.wait_for("begins no MQTT packet")
        assert (await stage.connect())[2] == 0
