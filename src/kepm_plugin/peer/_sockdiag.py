"""Linux: asks the kernel for one connection, and for who listens (sock_diag(7)).

`/proc/net/tcp` has the same rows, but walks through a table made for all connections that the machine could have: 5 ms
for each look on a machine with a lot of memory, where this takes microseconds.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from ._rows import Endpoint, SocketRow, endpoint

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY, of questions and answers alike
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _DUMP = 0x1, 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_LISTEN: Final = 10  # TCP_LISTEN
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUESTION: Final = struct.Struct("=BBBxI")  # inet_diag_req_v2 up to its inet_diag_sockid: family, protocol, -, states
_ENDS: Final = struct.Struct("!HH16s16s")  # inet_diag_sockid: ports and addresses, here and there
_ANY: Final = struct.Struct("=III").pack(0, 0xFFFFFFFF, 0xFFFFFFFF)  # the rest of it: any interface, no cookie
_STATE: Final = struct.Struct("=BBxx")  # inet_diag_msg: family, state
_HOLDER: Final = struct.Struct("=II")  # its end: user id and inode
_HOLDER_AT: Final = _STATE.size + _ENDS.size + len(_ANY) + 12
_PIECE: Final = 65_536  # bytes of answers that are read at once


def kernel_rows(local: Endpoint, remote: Endpoint) -> Iterator[SocketRow]:
    """Yield what is at the other end of the connection from `local` to `remote`, and who listens on that port.

    Raises:
        OSError: This kernel does not say.
    """
    here, there = endpoint(local), endpoint(remote)
    family = socket.AF_INET6 if ":" in there[0] else socket.AF_INET
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
    with kernel:
        kernel.setblocking(False)  # an answer is there when the question has been sent
        kernel.connect((0, 0))  # to the kernel: nobody else is heard
        yield from _asked(kernel, family, _REQUEST, 0xFFFFFFFF, there, here)
        for each in (socket.AF_INET, socket.AF_INET6):
            yield from _asked(kernel, each, _REQUEST | _DUMP, 1 << _LISTEN, ("", there[1]), ("", 0))


def _asked(
    kernel: socket.socket, family: int, flags: int, states: int, there: Endpoint, here: Endpoint
) -> Iterator[SocketRow]:
    ends = _ENDS.pack(there[1], here[1], _packed(there[0]), _packed(here[0]))
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, states) + ends + _ANY
    kernel.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, flags, 0, 0) + question)
    while True:
        answers, at = kernel.recv(_PIECE), 0
        while at < len(answers):
            length, kind, *_ = _HEADER.unpack_from(answers, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", answers, at + _HEADER.size)
                if -number == errno.ENOENT:  # there is no such connection
                    return
                raise OSError(-number, "sock_diag")
            yield _row(answers, at + _HEADER.size)
            at += (length + 3) & ~3
        if not flags & _DUMP:
            return


def _packed(address: str) -> bytes:
    return ip_address(address).packed.ljust(16, b"\0") if address else bytes(16)


def _row(message: bytes, at: int) -> SocketRow:
    family, state = _STATE.unpack_from(message, at)
    port, other_port, address, other_address = _ENDS.unpack_from(message, at + _STATE.size)
    uid, inode = _HOLDER.unpack_from(message, at + _HOLDER_AT)
    size = 16 if family == socket.AF_INET6 else 4
    return SocketRow(
        local=endpoint((str(ip_address(address[:size])), port)),
        remote=endpoint((str(ip_address(other_address[:size])), other_port)),
        listening=state == _LISTEN,
        holder=uid if inode else None,
    )
