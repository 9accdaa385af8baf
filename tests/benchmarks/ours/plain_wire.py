"""Ours without TLS, for the comparison at QoS 0: the framework itself speaks TLS only.

A socket takes the place of the TLS socket, and says what that one would say. It costs ours one more call a reading.
"""

import asyncio
import socket
import ssl
from typing import Any

from kepm_plugin import broker


class _Plain(socket.socket):
    def recv(self, *args: Any) -> bytes:
        try:
            return super().recv(*args)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None

    def send(self, *args: Any) -> int:
        try:
            return super().send(*args)
        except BlockingIOError:
            raise ssl.SSLWantWriteError from None

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        return None


def without_tls(port: int) -> None:
    """Have every session of this process go to a port that speaks no TLS."""

    async def dial(host: str, *_: Any) -> Any:
        plain = _Plain(socket.AF_INET, socket.SOCK_STREAM)
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(plain, (host, port))
        return plain

    broker.__dict__["dial"] = dial
