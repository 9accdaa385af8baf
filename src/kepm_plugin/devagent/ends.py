"""The two ends of a passage: streams with what was read from them, and the ways to close them."""

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from kepm_plugin.devagent.packets import Packet, Splitter

READ: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class End:
    """One end of a passage: its streams, and packets that were read from it already."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    splitter: Splitter = field(default_factory=Splitter)
    early: tuple[Packet, ...] = ()


async def first_packets(end: End) -> list[Packet]:
    """Return what comes up to and with the first packet; nothing where the stream ends before."""
    while data := await end.reader.read(READ):
        if packets := end.splitter.feed(data):
            return packets
    return []


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, which is what closing does to a socket that must not linger."""
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def leave(engine: End) -> None:
    """Say to the engine that nothing more comes, and return when it has closed its side."""
    with suppress(OSError):
        engine.writer.write_eof()
        while await engine.reader.read(READ):
            continue
