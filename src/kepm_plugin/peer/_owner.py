"""Whose socket answers on the agent's port: what the system's tables of connections say, and what counts as ours."""

import functools
import importlib
import ipaddress
import logging
import os
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from ..errors import PeerNotTrusted
from ._rows import Endpoint, SocketRow, endpoint, holders, is_loopback, plain
from ._sockdiag import kernel_rows

PeerPolicy = Literal["warn", "require"]
"""What to do where nobody can tell whose socket it is: say so once and go on, or refuse."""

_log = logging.getLogger("kepm_plugin.peer")

_LOOKS: Final = 3  # at the tables, for a connection that is not in them
_LISTEN: Final = 0x0A  # TCP_LISTEN in /proc/net/tcp
_SYSTEM_NAMES: Final = frozenset({"system", "système", "sistema", "система"})  # Windows translates account names


class _ProcessTable(Protocol):
    """What is used of psutil."""

    Error: type[Exception]

    def net_connections(self, kind: str) -> Iterable[Any]: ...
    def Process(self, pid: int | None = None) -> Any: ...  # noqa: N802  psutil's name


def check_peer(local: Endpoint, remote: Endpoint, policy: PeerPolicy, *, answered: bool = False) -> str | None:
    """Refuse a connection whose other end belongs neither to root or SYSTEM nor to our own user.

    May read large tables: call it in a thread.

    Args:
        local: Our end of the established connection.
        remote: The other end, where the agent should be.
        policy: What to do where nobody can tell.
        answered: Something has come from there, so that a process has taken the connection. Before that it may wait
            in a queue, where nothing tells who will take it but who listens.

    Returns:
        None where the owner is known and trusted; else, under "warn", why nobody can tell.

    Raises:
        PeerNotTrusted: It is not on loopback, somebody else's, or unknown under "require".
    """
    where = f"{remote[0]}:{remote[1]}"
    if not is_loopback(remote[0]):
        raise PeerNotTrusted(f"{where} is not on this machine: use the agent's loopback address, or give --ca-bundle")
    strangers, unknown = _owner(local, remote, answered)
    for _ in range(_LOOKS - 1):
        if unknown:  # a table that changes while it is read may lack a row
            strangers, unknown = _owner(local, remote, answered)
    if strangers:
        raise PeerNotTrusted(
            f"what listens on {where} belongs to {strangers}, neither to root or SYSTEM nor to this process's user: "
            "find out what it is; where the agent really runs as that user, give its certificate with --ca-bundle"
        )
    if unknown:
        text = f"nobody can tell who listens on {where}: {unknown}"
        if policy == "require":
            raise PeerNotTrusted(f"{text}; give --ca-bundle, or allow it with --peer warn")
        _warn_once(text)
        return text
    return None


def known_peer(local: Endpoint, remote: Endpoint, *, answered: bool = False) -> bool:
    """Tell, without waiting for anything, that `check_peer` would find nothing to refuse.

    False says nothing: then `check_peer` has to look, which may take longer.
    """
    if sys.platform != "linux" or not is_loopback(remote[0]):
        return False
    try:
        found = holders(kernel_rows(local, remote), local, remote, answered=answered)
    except (OSError, struct.error):  # another form of answers included
        return False
    return found is not None and bool(found) and found <= own_ids()


def _owner(local: Endpoint, remote: Endpoint, answered: bool) -> tuple[str, str]:
    """Return the owners that are not trusted, and why nobody can tell; both empty where all is well."""
    if sys.platform == "linux":
        return _linux_owner(local, remote, answered)
    return _process_owner(local, remote, answered)


@functools.cache
def _warn_once(text: str) -> None:
    _log.warning("%s; going on, as the peer policy is 'warn'", text)


# --- Linux ----------------------------------------------------------------------------------------------------------


def socket_rows(table: str, *, port: int, byteorder: Literal["little", "big"] = sys.byteorder) -> Iterator[SocketRow]:
    """Parse the rows of `/proc/net/tcp` or `/proc/net/tcp6` in which `port` occurs (proc_net_tcp in the kernel's docs).

    Addresses are hexadecimal, in words of 32 bits in the machine's byte order.
    """
    needle = f":{port:04X}"
    for line in table.splitlines()[1:]:
        if needle not in line:
            continue
        fields = line.split()
        inode = int(fields[9])
        yield SocketRow(
            local=_proc_endpoint(fields[1], byteorder),
            remote=_proc_endpoint(fields[2], byteorder),
            listening=int(fields[3], 16) == _LISTEN,
            holder=int(fields[7]) if inode else None,
        )


def _proc_endpoint(text: str, byteorder: Literal["little", "big"]) -> Endpoint:
    address, _, port = text.partition(":")
    packed = bytes.fromhex(address)
    if byteorder == "little":
        packed = b"".join(packed[start : start + 4][::-1] for start in range(0, len(packed), 4))
    return str(plain(str(ipaddress.ip_address(packed)))), int(port, 16)


def _read_table(name: str) -> str:
    return Path("/proc/net", name).read_text("ascii")


def _linux_owner(local: Endpoint, remote: Endpoint, answered: bool) -> tuple[str, str]:
    rows: list[SocketRow] = []
    for name in ("tcp", "tcp6"):
        try:
            table = _read_table(name)
        except FileNotFoundError:  # tcp6: IPv6 is off
            continue
        except OSError as error:
            return "", f"/proc/net/{name} cannot be read ({error.strerror})"
        rows += socket_rows(table, port=remote[1])
    found = holders(rows, local, remote, answered=answered)
    if found is not None and not found:
        return "", "the connection is not listed in /proc/net/tcp"
    strangers = (found or set[int]()) - own_ids()
    return ", ".join(f"user id {uid}" for uid in sorted(strangers)), ""


def own_ids(proc: Path = Path("/proc")) -> set[int]:
    """Return the user ids that are trusted: root's and our own.

    In a user namespace every user outside is shown as the one of `overflowuid` ("nobody"): not ours then, even where
    our own number is the same (user_namespaces(7)).
    """
    own = {0, os.geteuid()}
    with suppress(OSError, ValueError):  # a kernel without user namespaces has no such file
        if (proc / "self/uid_map").read_text("ascii").split() != ["0", "0", "4294967295"]:
            own.discard(int((proc / "sys/kernel/overflowuid").read_text("ascii")))
    return own


# --- Windows, macOS -------------------------------------------------------------------------------------------------


def _psutil() -> _ProcessTable:
    return cast("_ProcessTable", importlib.import_module("psutil"))  # not installed on Linux; has no types


def _process_owner(local: Endpoint, remote: Endpoint, answered: bool) -> tuple[str, str]:
    """Through psutil: which process holds the other end, and whose it is."""
    processes = _psutil()
    try:
        rows = [
            SocketRow(
                local=endpoint(tuple(each.laddr)[:2]),
                remote=endpoint(tuple(each.raddr)[:2]) if each.raddr else ("", 0),
                listening=each.status == "LISTEN",
                holder=each.pid or None,
            )
            for each in processes.net_connections(kind="tcp")
            if each.laddr
        ]
        found = holders(rows, local, remote, answered=answered)
        if found is None:
            return "", ""
        if not found:
            return "", "no process is listed for the connection"
        own = processes.Process().username()
        names = {processes.Process(pid).username() for pid in sorted(found)}
    except processes.Error as error:
        return "", f"this user may not ask ({type(error).__name__})"
    return ", ".join(sorted(name for name in names if name != own and not is_system(name))), ""


def is_system(account: str) -> bool:
    r"""Tell whether an account is root, or `NT AUTHORITY\SYSTEM` in any language of Windows."""
    domain, separator, name = account.casefold().rpartition("\\")
    if not separator:
        return name == "root"
    return name in _SYSTEM_NAMES and "nt" in re.split("[ -]", domain)
