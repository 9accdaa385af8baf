"""The bytes below MQTT: TCP, who listens, TLS, and a socket as paho wants it.

Connecting is done here rather than by paho, whose way blocks a thread that nobody can stop, ignores the time limit
during the TLS handshake and leaves no moment before it to look who listens. Here it can be cancelled at every step.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Final

import anyio
import anyio.to_thread

from ..peer import Trust, is_loopback
from ._options import Ending

_CHUNK: Final = 65_536  # bytes; a TLS record has at most 16 KiB


async def dial(host: str, port: int, tls: ssl.SSLContext, trust: Trust) -> ssl.SSLSocket:
    """Return a connected, non-blocking TLS socket, whose other end has been looked at before TLS and after it.

    Raises:
        OSError: Nobody listens, or TLS failed (`ssl.SSLError` is one).
        PeerNotTrusted: Who listens is not trusted.
    """
    raw = await _connected(host, port)
    try:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small packets, each of which somebody waits for
        await _check(raw, trust, answered=False)
        secure = tls.wrap_socket(raw, server_hostname=_ascii(host), do_handshake_on_connect=False)
    finally:
        raw.close()  # wrap_socket took its descriptor over; on failure nobody else closes it
    done = False
    try:
        await _handshake(secure)
        await _check(secure, trust, answered=True)
        done = True
    finally:
        if not done:
            secure.close()
    return secure


async def _connected(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    try:
        addresses = socket.getaddrinfo(_ascii(host), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # no number, and so a name that has to be looked up, in a thread
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a level of the name is empty or too long; `broker.host` can be anything
        raise OSError(f"{host!r} is no host name") from None
    for family, kind, protocol, _, address in addresses:
        raw = socket.socket(family, kind, protocol)
        connected = False
        try:
            raw.setblocking(False)
            await loop.sock_connect(raw, address)
            connected = True
        except OSError as error:  # "localhost" may be ::1 first, where the agent does not listen
            failure = error
        finally:
            if not connected:
                raw.close()
        if connected:
            return raw
    raise failure


def _ascii(host: str) -> str | bytes:
    """Return an address as bytes: text is taken through the rules of international names, whose tables take 2 ms."""
    return host.encode() if host.isascii() and is_loopback(host) else host


async def _check(sock: socket.socket, trust: Trust, *, answered: bool) -> None:
    local, remote = sock.getsockname()[:2], sock.getpeername()[:2]
    if trust.known(local, remote, answered=answered):
        return
    check = partial(trust.check, local, remote, answered=answered)
    await anyio.to_thread.run_sync(check, abandon_on_cancel=True)


async def _handshake(secure: ssl.SSLSocket) -> None:
    while True:
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            await anyio.wait_readable(secure)
        except ssl.SSLWantWriteError:
            await anyio.wait_writable(secure)
        else:
            return


class Wire:
    """A TLS socket with what paho's `SocketLike` asks for, reading in large pieces.

    paho reads two single bytes per packet; from a buffer that costs little, and the buffer knows what TLS hides from
    `select`: whether something that was received has not been read yet.

    Attributes:
        dry: The last `recv` found nothing: the next one needs the socket to be readable.
        spent: The last `recv` gave nothing as the reading has had its share (`start_reading`), or enough.
        ending: How it went, as far as bytes tell.
        certificate: Fingerprint of what the other end has shown.
        trouble: Why reading or writing failed, in plain words.
    """

    def __init__(self, secure: ssl.SSLSocket) -> None:
        self._secure = secure
        self._data: bytes = b""
        self._read = 0
        self._left: float = math.inf
        self._enough = False
        self.dry = self.spent = False
        self.ending: Ending = "broken"
        self.trouble = ""
        self.certificate = sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()

    def start_reading(self, share: int) -> None:
        """Begin a reading that takes about so many bytes off the wire: the last piece is taken whole."""
        self.dry = self.spent = self._enough = False
        self._left = share

    def end_reading(self) -> None:
        """Give nothing more until the next reading; what was taken off the wire already waits for that."""
        self._enough = True

    def recv(self, size: int) -> bytes:
        if self._enough or (self._read == len(self._data) and self._left <= 0):
            self.spent = True
            raise BlockingIOError
        if self._read == len(self._data):
            self._fill()
        piece = self._data[self._read : self._read + size]
        self._read += len(piece)
        return piece

    def hand_over(self, take: Callable[[int, bytes, int, int], bool]) -> bool:
        """Give packets to a function, past paho; tell whether it has taken any.

        Only between two packets of paho's. Ends, by leaving it to `recv`, at what has not arrived in full, or was not
        taken; and where this reading ends.

        Args:
            take: Gets a packet's first byte, and what it is in: from where the remaining length has ended, to the end
                of the packet. Tells whether it has taken it.
        """
        any_taken = False
        while not self._enough:
            if self._read == len(self._data):
                if self._left <= 0:
                    break
                try:
                    self._fill()
                except OSError:  # `recv` meets it again, where it is not merely dry
                    break
            data, begin = self._data, self._read
            if not data:
                break
            start, end = _body(data, begin + 1)
            if end > len(data) or not take(data[begin], data, start, end):
                break
            self._read, any_taken = end, True
        return any_taken

    def _fill(self) -> None:
        self._data, self._read = self._receive(), 0
        self._left -= len(self._data)

    def _receive(self) -> bytes:
        try:
            data = self._secure.recv(_CHUNK)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.dry = True
            raise
        except OSError as error:
            self._failed(error)
            raise
        if not data and not self.trouble:
            self.ending = "closed" if self._has_peer() else "reset"
            self.trouble = f"the broker {self.ending} the connection"
        return data

    def _has_peer(self) -> bool:
        """Tell an orderly end from a reset, which TLS shows as an end too."""
        with suppress(OSError):
            return bool(self._secure.getpeername())
        return False

    def send(self, data: bytes | bytearray) -> int:
        try:
            return self._secure.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self._failed(error)
            raise

    def _failed(self, error: OSError) -> None:
        if not self.trouble and isinstance(error, ConnectionError):
            self.ending = "reset"
        self.trouble = self.trouble or f"the connection broke ({error.strerror or error})"

    def fileno(self) -> int:
        return self._secure.fileno()

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise ValueError("the event loop needs a socket that does not block")

    def close(self) -> None:
        """Close the socket; from then on reading and writing fail."""
        self._data = b""
        self._read = 0
        self._secure.close()


def _body(data: bytes, at: int) -> tuple[int, int]:
    """Return where a packet's body begins and ends; the remaining length is at `at` (MQTT 5.0, section 1.5.5).

    Beyond the data, where that is not all there, or is none.
    """
    length = 0
    for index in range(at, min(at + 4, len(data))):
        length |= (data[index] & 0x7F) << 7 * (index - at)
        if data[index] < 0x80:
            return index + 1, index + 1 + length
    return at, len(data) + 1
