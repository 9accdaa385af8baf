"""What may listen where the agent should: one listener that answers as its API and as its broker, or worse.

As a program it is the same under another user id: `python impostor.py UID`, with certificate and key on standard input.
It says its port in a line, and serves until standard input ends. It imports nothing of ours.
"""

import contextlib
import os
import socket
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

PATIENCE = 5.0
"""Seconds that the tests wait for the listener; it waits far longer for them, so that nobody is saved by that."""

Greet = Callable[[socket.socket], None]
"""What is done with a connection before TLS."""


def answer(request: bytes) -> bytes:
    """Answer a request for settings, or CONNECT, which it is told by its first byte."""
    if request[:1] == b"\x10":
        return b"\x20\x03\x00\x00\x00"
    body = b'{"root": "/etc"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def reset(raw: socket.socket) -> None:
    """End a connection as if its process had been killed: with a reset, in the middle of the handshake."""
    raw.recv(65_536)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def plain(raw: socket.socket) -> None:
    """Talk without TLS."""
    raw.recv(65_536)
    raw.sendall(b"220 mail.example.org\r\n")
    raw.close()


class Listener:
    """Listens until it is closed.

    Attributes:
        heard: What it was sent over TLS.
        connections: How many were made.
        left: Set when one of them has ended.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        host: str = "127.0.0.1",
        greet: Greet | None = None,
        respond: Callable[[ssl.SSLSocket, bytes], None] | None = None,
    ) -> None:
        self.context, self._greet, self._respond = context, greet, respond
        self.heard = b""
        self.connections = 0
        self.left = threading.Event()
        self._ended: set[int] = set()  # ports of the other ends
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        self._socket = socket.create_server((host, 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="impostor")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                raw, other = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(raw, other[1]), name="impostor connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket, other: int) -> None:
        raw.settimeout(10 * PATIENCE)
        self._open.append(raw)
        with contextlib.suppress(OSError):
            self._speak(raw)
        raw.close()
        self.left.set()
        with self._changed:
            self._ended.add(other)
            self._changed.notify_all()

    def all_left(self) -> bool:
        """Wait for the end of all connections so far, and of one more, which comes after them."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as last:
            port: int = last.getsockname()[1]
        with self._changed:
            return self._changed.wait_for(
                lambda: port in self._ended and len(self._ended) == self.connections, PATIENCE
            )

    def _speak(self, raw: socket.socket) -> None:
        with raw:
            if self._greet is not None:
                self._greet(raw)
                return
            with self.context.wrap_socket(raw, server_side=True) as secure:
                self._open.append(secure)
                while request := secure.recv(65_536):
                    self.heard += request
                    if self._respond is not None:
                        self._respond(secure, request)
                    elif request[:1] in b"\x10GP":
                        secure.sendall(answer(request))

    def hang_up(self) -> None:
        """End all connections."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """End the connections, and listen no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._threads[0].join(PATIENCE)
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """Listen as another user."""
    pair = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pair.pem")
        file.write_bytes(pair)
        context.load_cert_chain(file)
    os.setuid(int(sys.argv[1]))
    with Listener(context) as listener:
        print(listener.port, flush=True)
        sys.stdin.buffer.read()
        print(listener.heard.hex(), flush=True)


if __name__ == "__main__":
    main()
