"""A TLS connection to the agent, for HTTPS and MQTT alike: who listens is looked at before TLS, and again after it.

It can be cancelled at every step, and leaves nothing open then.
"""

import errno
import os
import socket
import ssl
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from ._trust import Trust


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
        secure = tls.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
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
    failure = OSError(f"{host} has no address")
    addresses: list[Any]
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # no number, and so a name that has to be looked up, in a thread
        addresses = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a level of the name is empty or too long; `broker.host` can be anything
        raise OSError(f"{host!r} is no host name") from None
    for family, kind, protocol, _, address in addresses:
        raw = socket.socket(family, kind, protocol)
        connected = False
        try:
            raw.setblocking(False)
            await _connect(raw, address)
            connected = True
        except OSError as error:  # "localhost" may be ::1 first, where the agent does not listen
            failure = error
        finally:
            if not connected:
                raw.close()
        if connected:
            return raw
    raise failure


async def _connect(raw: socket.socket, address: Any) -> None:
    failed = raw.connect_ex(address)
    if failed in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        await anyio.wait_writable(raw)
        failed = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


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
