"""The bytes below MQTT: a TLS socket as paho wants it.

Connecting is done by `peer` rather than by paho, whose way blocks a thread that nobody can stop, ignores the time limit
during the TLS handshake and leaves no moment before it to look who listens.
"""

import math
import ssl
from contextlib import suppress
from hashlib import sha256
from typing import Final

from ._options import Ending

_CHUNK: Final = 65_536  # bytes; a TLS record has at most 16 KiB


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
        if self._enough:
            self.spent = True
            raise BlockingIOError
        if self._read == len(self._data):
            if self._left <= 0:
                self.spent = True
                raise BlockingIOError
            self._data, self._read = self._receive(), 0
            self._left -= len(self._data)
        piece = self._data[self._read : self._read + size]
        self._read += len(piece)
        return piece

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
