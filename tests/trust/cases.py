"""The cases: who listens, what they show, what we are given to check it by, and what was decided about it."""

import os
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol, Self
from unittest.mock import patch

import psutil
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from kepm_plugin.errors import AgentUnreachable, KepmError, PeerNotTrusted, UsageError
from kepm_plugin.peer import PeerPolicy
from kepm_plugin.peer import _owner as sockets  # pyright: ignore[reportPrivateUsage]
from tests.trust import impostor
from tests.trust.attempts import PATIENCE
from tests.trust.certificates import DAY, LEAF, Made, make, make_authority
from tests.trust.impostor import Listener

STRANGER: Final = 65_534
"""The user id of somebody else ("nobody")."""
ELSEWHERE: Final = "agent.example"
"""A name that the tests have resolved to this machine, which nobody can tell from it."""


def own_address() -> str:
    """Return an address of this machine that is not loopback; nothing is sent from it."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return one.address
    raise AssertionError("this machine has no network interface but loopback")


class Kit:
    """The certificates of the cases, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = make(folder)
        self.other = make(folder)

    @cached_property
    def authority(self) -> Made:
        return make_authority(self.folder)

    @cached_property
    def signed(self) -> Made:
        return make(self.folder, signer=self.authority)

    def open_to_all(self) -> Path:
        """Return a bundle that is right, and that everybody can write to."""
        bundle = self.folder / "open.pem"
        bundle.write_bytes(self.agent.file.read_bytes())
        bundle.chmod(0o666)
        return bundle


class Heard(Protocol):
    """Who listens."""

    port: int

    @property
    def heard(self) -> bytes:
        """What was sent over TLS."""
        ...


class Stranger:
    """A listener of another user: a process of its own, where this one may make one."""

    def __init__(self, shows: Made) -> None:
        self.heard = b""
        pair = shows.pair.read_bytes()
        self._process = subprocess.Popen(
            [sys.executable, "-IS", impostor.__file__, str(STRANGER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{len(pair)}\n".encode() + pair)
        self._process.stdin.flush()
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.heard = bytes.fromhex(self._process.communicate(timeout=10)[0].decode())


def shown_as(uid: int, port: int) -> AbstractContextManager[object]:
    """Have the kernel's table say that what listens on a port is another user's."""
    real = sockets._read_table  # pyright: ignore[reportPrivateUsage]

    def read_table(name: str) -> str:
        rows = [line.split() for line in real(name).splitlines()]
        for row in rows[1:]:
            if row[1].endswith(f":{port:04X}"):
                row[7] = str(uid)
        return "\n".join(map(" ".join, rows))

    return tables_alone(read_table)


@contextmanager
def tables_alone(read_table: Callable[[str], str]) -> Generator[None]:
    """Have the kernel say nothing but what these tables have."""
    refused = PermissionError(1, "Operation not permitted")
    with patch.object(sockets, "_read_table", read_table), patch.object(sockets, "kernel_rows", side_effect=refused):
        yield


@contextmanager
def somebody_elses(kit: Kit) -> Generator[Heard]:
    """Listen as another user."""
    if os.geteuid() == 0:
        with Stranger(kit.agent) as stranger:
            yield stranger
    else:
        with Listener(kit.agent.context()) as listener, shown_as(STRANGER, listener.port):
            yield listener


@contextmanager
def roots(kit: Kit) -> Generator[Heard]:
    """Listen as root, while we are somebody else."""
    with (
        Listener(kit.agent.context()) as listener,
        shown_as(0, listener.port),
        patch.object(os, "geteuid", lambda: 1000),
    ):
        yield listener


@contextmanager
def nobodys(kit: Kit) -> Generator[Heard]:
    """Listen where the kernel's table cannot be read."""

    def denied(name: str) -> str:
        raise PermissionError(13, "Permission denied")

    with Listener(kit.agent.context()) as listener, tables_alone(denied):
        yield listener


def resolving(name: str, address: str) -> AbstractContextManager[object]:
    """Have a name lead to an address."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        host = host.decode() if isinstance(host, bytes) else host
        return real(address if host == name else host, *rest, **more)

    return patch.object(socket, "getaddrinfo", getaddrinfo)


@contextmanager
def at(address: str, name: str, shows: Callable[[Kit], Made], kit: Kit) -> Generator[Heard]:
    """Listen at an address, to which a name leads."""
    with Listener(shows(kit).context(), host=address) as listener, resolving(name, address):
        yield listener


def showing(shows: Callable[[Kit], Made]) -> "Listen":
    """Listen on loopback with a certificate."""
    return lambda kit: Listener(shows(kit).context())


def greeting(greet: impostor.Greet) -> "Listen":
    """Do something else than TLS with each connection."""
    return lambda kit: Listener(kit.agent.context(), greet=greet)


def _old(kit: Kit) -> Listener:
    context = kit.agent.context()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return Listener(context)


def _mute(raw: socket.socket) -> None:
    while raw.recv(65_536):
        pass


Listen = Callable[[Kit], AbstractContextManager[Heard]]


def well(kit: Kit) -> Listener:
    """Listen as the agent does."""
    return Listener(kit.agent.context())


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table.

    `said` is the class of the error, None where it is accepted; `https` and `mqtt` are the exit codes of a plugin that
    meets it at its start, and for as long as its link is tried.
    """

    name: str
    listen: Listen = well
    bundle: Callable[[Kit], Path | None] = lambda kit: None
    peer: PeerPolicy = "warn"
    host: str = "127.0.0.1"
    said: type[KepmError] | None = None
    https: int = 0
    words: str = ""
    warns: bool = False
    patience: float = PATIENCE


def agents(kit: Kit) -> Path:
    """Return the bundle that holds the agent's certificate."""
    return kit.agent.file


def others(kit: Kit) -> Path:
    """Return a bundle that holds another certificate than the agent's."""
    return kit.other.file


def refused(name: str, shows: Callable[[Kit], Made], words: str, bundle: Callable[[Kit], Path] | None = None) -> Case:
    """A certificate that is not accepted; the bundle holds what was shown unless another one is given."""
    return Case(
        name=name,
        listen=showing(shows),
        bundle=bundle or (lambda kit: kit.authority.file),
        said=PeerNotTrusted,
        https=71,
        words=words,
    )


def trusted(name: str, shows: Callable[[Kit], Made], bundle: Callable[[Kit, Made], Path]) -> Case:
    """A certificate that is accepted."""
    made: dict[Kit, Made] = {}

    def once(kit: Kit) -> Made:
        return made.setdefault(kit, shows(kit))

    return Case(name=name, listen=showing(once), bundle=lambda kit: bundle(kit, once(kit)))


def by_authority(**how: Any) -> Callable[[Kit], Made]:
    """Make certificates that the authority has signed."""
    return lambda kit: make(kit.folder, signer=kit.authority, **how)


def _client_only(kit: Kit) -> Made:
    return make(
        kit.folder,
        signer=kit.authority,
        extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)],
    )


ME: Final = own_address()

CASES: Final = [
    # --- without a bundle: whose socket it is ---
    Case(name="our own user's listener"),
    Case(name="root's listener; we are another user", listen=roots),
    Case(
        name="another user's listener",
        listen=somebody_elses,
        said=PeerNotTrusted,
        https=71,
        words=rf"belongs to user id {STRANGER}.*--ca-bundle",
    ),
    Case(
        name="another user's listener, `--peer require`",
        listen=somebody_elses,
        peer="require",
        said=PeerNotTrusted,
        https=71,
        words=rf"belongs to user id {STRANGER}.*--ca-bundle",
    ),
    Case(name="nobody can tell whose listener it is; the log says so", listen=nobodys, warns=True),
    Case(
        name="nobody can tell, `--peer require`",
        listen=nobodys,
        peer="require",
        said=PeerNotTrusted,
        https=71,
        words=r"nobody can tell.*--peer warn",
    ),
    Case(
        name="an address that is not loopback",
        listen=partial(at, ME, "unused.example", lambda kit: kit.agent),
        host=ME,
        said=PeerNotTrusted,
        https=71,
        words="not this machine.*--ca-bundle",
    ),
    Case(
        name="a host name other than `localhost`, wherever it leads",
        listen=partial(at, "127.0.0.1", ELSEWHERE, lambda kit: kit.agent),
        host=ELSEWHERE,
        said=PeerNotTrusted,
        https=71,
        words="not this machine.*--ca-bundle",
    ),
    Case(
        name="`localhost` that leads elsewhere",
        listen=partial(at, ME, "localhost", lambda kit: kit.agent),
        host="localhost",
        said=PeerNotTrusted,
        https=71,
        words="not on this machine.*--ca-bundle",
    ),
    # --- with a bundle: which certificate it shows ---
    Case(name="bundle: another user's listener with the agent's certificate", listen=somebody_elses, bundle=agents),
    Case(
        name="bundle: an address that is not loopback, and that the certificate names",
        listen=partial(at, ME, "unused.example", by_authority(hosts=[ME])),
        bundle=lambda kit: kit.authority.file,
        host=ME,
    ),
    Case(
        name="bundle: a host name that the certificate names",
        listen=partial(at, "127.0.0.1", ELSEWHERE, by_authority(hosts=[ELSEWHERE])),
        bundle=lambda kit: kit.authority.file,
        host=ELSEWHERE,
    ),
    Case(name="bundle: the agent's certificate, signed by itself", bundle=agents),
    trusted(
        "bundle: the same with the key usage of a server, and no authority",
        lambda kit: make(kit.folder, extensions=LEAF),
        lambda kit, shown: shown.file,
    ),
    trusted("bundle: the authority that has signed it", by_authority(), lambda kit, shown: kit.authority.file),
    trusted(
        "bundle: the certificate alone, which an authority has signed", by_authority(), lambda kit, shown: shown.file
    ),
    refused(
        "bundle: another certificate",
        lambda kit: kit.agent,
        "not one of the CA bundle's.*export it again",
        others,
    ),
    refused("bundle: one of another authority", lambda kit: kit.signed, "not one of the CA bundle's", others),
    refused("bundle: expired", by_authority(begins=-2 * DAY, ends=-DAY), "not valid now.*expired.*clock"),
    refused("bundle: not yet valid", by_authority(begins=DAY, ends=2 * DAY), "not valid now.*not yet valid.*clock"),
    refused("bundle: for another name", by_authority(hosts=["agent.example"]), "for another name.*--keeper-api-base"),
    refused(
        "bundle: for `localhost`, shown at 127.0.0.1", by_authority(hosts=["localhost"]), "for another name.*localhost"
    ),
    refused("bundle: for clients, not for servers", _client_only, "unsuitable certificate purpose"),
    Case(
        name="bundle: a file that others can write to",
        bundle=Kit.open_to_all,
        said=UsageError,
        https=2,
        words="proves nothing.*chmod go-w",
    ),
    Case(
        name="bundle: a file that is not there",
        bundle=lambda kit: kit.folder / "absent.pem",
        said=UsageError,
        https=2,
        words="cannot be used.*PEM",
    ),
    # --- not TLS as it should be ---
    Case(
        name="no TLS at all",
        listen=greeting(impostor.plain),
        said=AgentUnreachable,
        https=67,
        words="does not speak TLS.*port",
    ),
    Case(name="TLS 1.1 at most", listen=_old, said=AgentUnreachable, https=67, words="no TLS from 1.2 on"),
    Case(
        name="a reset during the handshake",
        listen=greeting(impostor.reset),
        said=AgentUnreachable,
        https=67,
        words="ended during the TLS handshake",
    ),
    Case(
        name="a listener that accepts and says nothing",
        listen=greeting(_mute),
        said=AgentUnreachable,
        https=67,
        words=r"no answer within 0\.2 s|gave up after 0\.2 s",
        patience=0.2,
    ),
]
