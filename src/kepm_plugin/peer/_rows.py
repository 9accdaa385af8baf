"""Sockets of this machine, as its tables list them, and what they say of one connection's other end."""

import ipaddress
from collections.abc import Iterable

from msgspec import Struct

Endpoint = tuple[str, int]
"""Address and port of one end of a connection."""


class SocketRow(Struct, frozen=True):
    """One TCP socket of this machine and who holds it.

    `holder` is a user id on Linux and a process id elsewhere, None where nothing is attached yet: the kernel reports
    a connection that waits to be accepted as root's, whoever listens.
    """

    local: Endpoint
    remote: Endpoint
    listening: bool
    holder: int | None


def is_loopback(host: str) -> bool:
    """Tell whether a host can only be this machine: `localhost`, 127.0.0.0/8, ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return plain(host).is_loopback
    except ValueError:
        return False


def plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address; one that is IPv4 inside IPv6 becomes IPv4, as a dual-stack listener reports both."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def endpoint(end: Endpoint) -> Endpoint:
    """Return an end in the form in which ends are compared."""
    return str(plain(end[0])), end[1]


def holders(rows: Iterable[SocketRow], local: Endpoint, remote: Endpoint, *, answered: bool = False) -> set[int] | None:
    """Return who holds the other end of the connection from `local` to `remote`; empty where nothing tells.

    While it waits to be accepted nobody holds it; then whoever listens there will. Once it has `answered`, only its own
    row counts: it may have been taken by another process than the one that listens by now. None: nobody holds it any
    more, so that nothing that is sent will be read.
    """
    here, there = endpoint(local), endpoint(remote)
    listeners: set[int] = set()
    places = {(address, there[1]) for address in (there[0], "0.0.0.0", "::")}  # noqa: S104  compared with
    closed = False
    for row in rows:
        if row.local == there and row.remote == here:
            if row.holder is not None:
                return {row.holder}
            closed = True
        elif row.holder is not None and row.listening and row.local in places:
            listeners.add(row.holder)
    if answered:
        return None if closed else set()
    return listeners
