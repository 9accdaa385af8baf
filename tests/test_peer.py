"""`peer`: TLS with and without a bundle, and whose socket listens at the other end."""

import importlib
import logging
import os
import re
import socket
import ssl
import struct
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from kepm_plugin.errors import PeerNotTrusted, UsageError
from kepm_plugin.peer import PeerPolicy, Trust, check_peer, is_loopback
from kepm_plugin.peer import _owner as sockets  # pyright: ignore[reportPrivateUsage]
from kepm_plugin.peer import _sockdiag as sockdiag  # pyright: ignore[reportPrivateUsage]
from kepm_plugin.peer._owner import is_system, known_peer, own_ids, socket_rows
from kepm_plugin.peer._rows import Endpoint, SocketRow, holders
from kepm_plugin.peer._sockdiag import kernel_rows

importlib.import_module("psutil")  # now: it looks at sys.platform, which tests change

ANY = "0.0.0.0"  # noqa: S104  compared with, never bound to
US, AGENT = ("127.0.0.1", 50000), ("127.0.0.1", 8675)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("LocalHost", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        (ANY, False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_without_a_bundle_a_loopback_certificate_is_not_verified() -> None:
    context = Trust().context("127.0.0.1")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_without_a_bundle_another_host_is_refused_with_the_remedy() -> None:
    with pytest.raises(PeerNotTrusted, match=r"10\.0\.0\.1 is not this machine.*--ca-bundle"):
        Trust().context("10.0.0.1")


def test_with_a_bundle_certificate_and_host_name_are_verified(certificate: Any) -> None:
    context = Trust(ca_bundle=certificate.file).context("10.0.0.1")
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509"] == 1


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_bundle_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(UsageError, match=f"{re.escape(str(bundle))}.*PEM"):
        Trust(ca_bundle=bundle).context("127.0.0.1")


@pytest.fixture
def bundle(tmp_path: Path, certificate: Any) -> Path:
    """A bundle with all that a PEM file may hold besides."""
    file = tmp_path / "safe" / "agent.pem"
    file.parent.mkdir()
    text = certificate.file.read_text()
    file.write_text(f"# Zo\u00eb's agent\n{text}\n{certificate.key.read_text()}{text}\n", "utf-8")
    file.chmod(0o644)
    return file


def test_a_bundle_may_hold_comments_and_keys(bundle: Path) -> None:
    assert Trust(ca_bundle=bundle).context("127.0.0.1").cert_store_stats()["x509"] == 1


NOBODY = 54_321


@pytest.mark.parametrize(
    ("place", "mode", "gid"),
    [
        pytest.param("safe/agent.pem", 0o646, 0, id="file, by all"),
        pytest.param("safe/agent.pem", 0o664, NOBODY, id="file, by a group"),
        pytest.param("safe", 0o757, 0, id="its folder, by all"),
        pytest.param("safe", 0o775, NOBODY, id="its folder, by a group"),
        pytest.param("", 0o757, 0, id="the folder above"),
    ],
)
def test_a_bundle_that_others_can_replace_proves_nothing(
    bundle: Path, tmp_path: Path, owners: dict[Path, tuple[int, int]], place: str, mode: int, gid: int
) -> None:
    (tmp_path / place).chmod(mode)
    owners[tmp_path / place] = os.geteuid(), gid
    with pytest.raises(UsageError, match=rf"proves nothing.*\(mode {mode:04o}\).*chmod go-w {tmp_path / place}$"):
        Trust(ca_bundle=bundle).context("127.0.0.1")
    (tmp_path / place).chmod(0o700)


@pytest.mark.parametrize("place", ["safe/agent.pem", "safe", "", "link"])
def test_a_bundle_that_is_somebody_elses_proves_nothing(
    bundle: Path, tmp_path: Path, owners: dict[Path, tuple[int, int]], place: str
) -> None:
    (tmp_path / "link").symlink_to("safe")
    owners[tmp_path / place] = NOBODY, NOBODY
    with pytest.raises(UsageError, match=rf"{tmp_path / place} belongs to user id {NOBODY}"):
        Trust(ca_bundle=tmp_path / "link" / ".." / "link" / bundle.name).context("127.0.0.1")


@pytest.mark.parametrize(
    ("place", "mode", "owned_by"),
    [
        pytest.param("safe/agent.pem", 0o664, None, id="a group of the owner's own"),
        pytest.param("safe", 0o1777, None, id="a folder as /tmp"),
        pytest.param("safe/agent.pem", 0o644, (0, 0), id="root's"),
    ],
)
def test_a_bundle_that_only_root_and_ourselves_can_replace_is_taken(
    bundle: Path,
    tmp_path: Path,
    owners: dict[Path, tuple[int, int]],
    place: str,
    mode: int,
    owned_by: tuple[int, int] | None,
) -> None:
    (tmp_path / place).chmod(mode)
    owners[tmp_path / place] = owned_by or (os.geteuid(), os.geteuid())
    (tmp_path / "absolute.pem").symlink_to(bundle)
    assert Trust(ca_bundle=tmp_path / "absolute.pem").context("127.0.0.1").cert_store_stats()["x509"] == 1


def test_a_bundle_that_is_a_pipe_or_a_circle_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "circle").symlink_to("circle")
    for name, why in (("pipe", "no regular file"), ("circle", "symbolic links")):
        with pytest.raises(UsageError, match=why):
            Trust(ca_bundle=tmp_path / name).context("127.0.0.1")


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[Path, tuple[int, int]]:
    """Owner and group of files, other than they are: only root could give them away."""
    given: dict[Path, tuple[int, int]] = {}
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        found = real(path)
        uid, gid = given.get(path, (found.st_uid, found.st_gid))
        return os.stat_result((*found[:4], uid, gid, *found[6:]))

    monkeypatch.setattr(Path, "lstat", lstat)
    return given


# --- /proc/net/tcp --------------------------------------------------------------------------------------------------

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def line(local: str, remote: str, state: str, uid: int, inode: int) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0 100 0\n"


@pytest.mark.parametrize(
    ("text", "byteorder", "expected"),
    [
        pytest.param(
            line("0100007F:21E3", "0100007F:C350", "01", 1000, 77),
            "little",
            [SocketRow(AGENT, US, listening=False, holder=1000)],
            id="established",
        ),
        pytest.param(
            line("7F000001:21E3", "7F000001:C350", "01", 1000, 77),
            "big",
            [SocketRow(AGENT, US, listening=False, holder=1000)],
            id="big endian",
        ),
        pytest.param(
            line("0000000000000000FFFF00000100007F:21E3", "0000000000000000FFFF00000100007F:C350", "01", 5, 77),
            "little",
            [SocketRow(AGENT, US, listening=False, holder=5)],
            id="IPv4 on a dual-stack listener",
        ),
        pytest.param(
            line("00000000000000000000000001000000:21E3", "00000000000000000000000000000000:0000", "0A", 0, 77),
            "little",
            [SocketRow(("::1", 8675), ("::", 0), listening=True, holder=0)],
            id="IPv6 listener",
        ),
        pytest.param(
            line("0100007F:21E3", "0100007F:C350", "01", 0, 0),
            "little",
            [SocketRow(AGENT, US, listening=False, holder=None)],
            id="not accepted yet: the kernel's 0 is not root",
        ),
        pytest.param(line("0100007F:21E4", "0100007F:C350", "01", 0, 9), "little", [], id="another port"),
        pytest.param("", "little", [], id="empty"),
    ],
)
def test_rows_of_the_kernels_table(text: str, byteorder: Literal["little", "big"], expected: list[SocketRow]) -> None:
    assert list(socket_rows(HEAD + text, port=8675, byteorder=byteorder)) == expected


LISTENER = SocketRow(AGENT, (ANY, 0), listening=True, holder=1)
ANY_LISTENER = SocketRow((ANY, 8675), (ANY, 0), listening=True, holder=2)
OTHER_LISTENER = SocketRow(("127.0.0.2", 8675), (ANY, 0), listening=True, holder=3)
WAITING = SocketRow(AGENT, US, listening=False, holder=None)
ACCEPTED = SocketRow(AGENT, US, listening=False, holder=4)
OUR_END = SocketRow(US, AGENT, listening=False, holder=5)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([OUR_END, LISTENER, ACCEPTED], {4}),
        ([OUR_END, LISTENER, WAITING], {1}),
        ([LISTENER, ANY_LISTENER, OTHER_LISTENER], {1, 2}),
        ([OUR_END, WAITING], set[int]()),
        ([], set[int]()),
    ],
)
def test_who_holds_the_other_end(rows: list[SocketRow], expected: set[int]) -> None:
    assert holders(rows, US, AGENT) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([OUR_END, LISTENER, ACCEPTED], {4}, id="taken"),
        pytest.param([OUR_END, LISTENER, WAITING], None, id="closed by who had it"),
        pytest.param([OUR_END, LISTENER], set[int](), id="not listed: who listens by now may be another"),
    ],
)
def test_once_it_has_answered_only_the_connection_itself_counts(
    rows: list[SocketRow], expected: set[int] | None
) -> None:
    assert holders(rows, US, AGENT, answered=True) == expected


def test_addresses_are_compared_in_their_plain_form() -> None:
    assert holders([ACCEPTED], ("::ffff:127.0.0.1", 50000), ("::ffff:127.0.0.1", 8675)) == {4}


# --- the check ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def first_warning() -> Iterator[None]:
    """Each test is a new process as far as "says so once" goes."""
    sockets._warn_once.cache_clear()  # pyright: ignore[reportPrivateUsage]
    yield
    sockets._warn_once.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/net of the test's own making."""

    def read_table(name: str) -> str:
        return (tmp_path / name).read_text("ascii")

    monkeypatch.setattr(sockets, "_read_table", read_table)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@pytest.mark.parametrize("uid", [0, os.geteuid()], ids=["root", "ourselves"])
def test_root_and_our_own_user_are_trusted(proc: Path, uid: int) -> None:
    (proc / "tcp").write_text(HEAD + line("0100007F:21E3", "0100007F:C350", "01", uid, 77))
    assert check_peer(US, AGENT, "require") is None


@pytest.mark.parametrize("policy", ["warn", "require"])
def test_another_users_socket_is_refused_whatever_the_policy(proc: Path, policy: PeerPolicy) -> None:
    (proc / "tcp").write_text(HEAD)
    (proc / "tcp6").write_text(
        HEAD + line("0000000000000000FFFF00000100007F:21E3", "0000000000000000FFFF00000100007F:C350", "01", 4711, 77)
    )
    with pytest.raises(PeerNotTrusted, match=r"127\.0\.0\.1:8675 belongs to user id 4711.*--ca-bundle"):
        check_peer(US, AGENT, policy)


def test_a_listener_of_another_user_is_refused_before_it_accepts(proc: Path) -> None:
    """Until then the kernel shows the connection as root's, which must not count."""
    (proc / "tcp").write_text(
        HEAD
        + line("0100007F:21E3", "0100007F:C350", "01", 0, 0)
        + line("00000000:21E3", "00000000:0000", "0A", 4711, 78)
    )
    with pytest.raises(PeerNotTrusted, match="user id 4711"):
        check_peer(US, AGENT, "warn")


def test_who_took_the_connection_is_not_taken_for_who_listens_by_now(proc: Path) -> None:
    """A stranger takes it, stops listening, and the real agent starts: before the handshake that would be trusted."""
    listener = line("0100007F:21E3", "00000000:0000", "0A", 0, 78)
    (proc / "tcp").write_text(HEAD + listener + line("0100007F:21E3", "0100007F:C350", "01", 4711, 77))
    with pytest.raises(PeerNotTrusted, match="user id 4711"):
        check_peer(US, AGENT, "warn", answered=True)
    (proc / "tcp").write_text(HEAD + listener)
    assert check_peer(US, AGENT, "require") is None
    with pytest.raises(PeerNotTrusted, match="not listed"):
        check_peer(US, AGENT, "require", answered=True)


def test_a_connection_that_its_taker_has_closed_is_left_to_fail(proc: Path) -> None:
    (proc / "tcp").write_text(HEAD + line("0100007F:21E3", "0100007F:C350", "05", 0, 0))
    assert check_peer(US, AGENT, "require", answered=True) is None


def test_a_row_that_one_reading_missed_is_found_by_the_next(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's table is no snapshot: it may change while it is read."""
    whole = HEAD + line("0100007F:21E3", "0100007F:C350", "01", os.geteuid(), 77)
    readings = iter([HEAD, HEAD, HEAD, HEAD, whole, HEAD])

    def read_table(name: str) -> str:
        return next(readings)

    monkeypatch.setattr(sockets, "_read_table", read_table)
    assert check_peer(US, AGENT, "require", answered=True) is None


@pytest.mark.parametrize(
    ("uid_map", "overflow", "expected"),
    [
        pytest.param("         0          0 4294967295\n", "4711\n", {0, 4711}, id="no user namespace"),
        pytest.param("         0     100000      65536\n", "65534\n", {0, 4711}, id="somebody else is shown as nobody"),
        pytest.param("         0     100000      65536\n", "4711\n", {0}, id="we run as nobody, and so does the world"),
        pytest.param(None, "4711\n", {0, 4711}, id="a kernel without user namespaces"),
    ],
)
def test_in_a_user_namespace_nobody_is_not_ourselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid_map: str | None, overflow: str, expected: set[int]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    for name, text in (("self/uid_map", uid_map), ("sys/kernel/overflowuid", overflow)):
        if text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    assert own_ids(tmp_path) == expected


def test_where_nobody_can_tell_warn_says_so_once(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    (proc / "tcp").write_text(HEAD)
    with caplog.at_level(logging.WARNING, "kepm_plugin.peer"):
        told = [check_peer(US, AGENT, "warn") for _ in range(2)]
    assert told == [told[0], told[0]]
    assert "not listed" in str(told[0])
    assert len(caplog.records) == 1


def test_where_nobody_can_tell_require_refuses(proc: Path) -> None:
    (proc / "tcp").mkdir()  # cannot be read as a file
    with pytest.raises(PeerNotTrusted, match=r"nobody can tell.*cannot be read.*--peer warn"):
        check_peer(US, AGENT, "require")


def test_an_end_that_is_not_on_loopback_is_refused() -> None:
    with pytest.raises(PeerNotTrusted, match="not on this machine"):
        check_peer(("10.0.0.1", 1), ("10.0.0.1", 2), "warn")


@contextmanager
def connected(family: socket.AddressFamily, host: str, *, accepted: bool) -> Generator[tuple[Endpoint, Endpoint]]:
    """A real connection, and its ends."""
    with socket.socket(family) as listener:
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::" if host.startswith("::ffff") else host, 0))
        listener.listen()
        listener.settimeout(5)
        with socket.create_connection((host.removeprefix("::ffff:"), listener.getsockname()[1]), timeout=5) as client:
            server = listener.accept()[0] if accepted else None
            try:
                yield client.getsockname()[:2], client.getpeername()[:2]
            finally:
                if server is not None:
                    server.close()


real = pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")]
)


@pytest.mark.parametrize("accepted", [False, True])
@real
def test_the_real_kernel_is_understood(family: socket.AddressFamily, host: str, accepted: bool) -> None:
    with connected(family, host, accepted=accepted) as ends:
        for answered in {False, accepted}:
            assert check_peer(*ends, "require", answered=answered) is None
            assert known_peer(*ends, answered=answered)


@pytest.mark.parametrize("accepted", [False, True])
@real
def test_what_the_kernel_is_asked_for_is_in_its_tables(family: socket.AddressFamily, host: str, accepted: bool) -> None:
    with connected(family, host, accepted=accepted) as ends:
        tables = "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6"))
        assert set(kernel_rows(*ends)) <= set(socket_rows(tables, port=ends[1][1]))
        for answered in {False, accepted}:
            assert holders(kernel_rows(*ends), *ends, answered=answered) == {os.geteuid()}


def test_who_is_not_trusted_is_never_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a connection that nobody has taken, once it has answered; then the tables decide."""
    with connected(socket.AF_INET, "127.0.0.1", accepted=False) as ends:
        assert not known_peer(*ends, answered=True)
        assert not known_peer(("127.0.0.1", 9), ends[0])
        assert not known_peer(("192.0.2.1", 9), ("192.0.2.1", 9))
        monkeypatch.setattr(sockets, "own_ids", lambda: {os.geteuid() + 1})
        assert not known_peer(*ends)


@pytest.mark.parametrize("answer", [b"", b"\0" * 7, struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -2), None], ids=repr)
def test_a_kernel_that_does_not_say_leaves_it_to_the_tables(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    class Kernel(socket.socket):
        def connect(self, _: object) -> None:
            if answer is None:  # as a sandbox does
                raise PermissionError(1, "Operation not permitted")

        def send(self, data: Any, *_: object) -> int:
            return len(data)

        def recv(self, *_: object) -> bytes:
            if answer:
                return answer
            raise BlockingIOError

    with connected(socket.AF_INET, "127.0.0.1", accepted=True) as ends:
        monkeypatch.setattr(sockdiag, "socket", SimpleNamespace(**{**vars(socket), "socket": Kernel}))
        assert not known_peer(*ends, answered=True)
        assert check_peer(*ends, "require", answered=True) is None


# --- Windows and macOS, with a process table of the test's own making -----------------------------------------------


class AccessDenied(Exception):
    pass


class Processes:
    """psutil, for one machine with one connection."""

    Error = AccessDenied

    def __init__(self, owners: dict[int | None, str], *, accepted: bool = True) -> None:
        self._owners, self._accepted = owners, accepted

    def net_connections(self, kind: str) -> list[SimpleNamespace]:
        assert kind == "tcp"
        if not self._owners:
            raise AccessDenied
        return [
            SimpleNamespace(laddr=(), raddr=(), status="NONE", pid=1),
            SimpleNamespace(laddr=US, raddr=AGENT, status="ESTABLISHED", pid=1),
            SimpleNamespace(laddr=("::ffff:127.0.0.1", 8675), raddr=(), status="LISTEN", pid=7),
            SimpleNamespace(laddr=AGENT, raddr=US, status="ESTABLISHED", pid=7 if self._accepted else 0),
        ]

    def Process(self, pid: int | None = None) -> SimpleNamespace:  # noqa: N802
        def username() -> str:
            if pid not in self._owners:
                raise AccessDenied
            return self._owners[pid]

        return SimpleNamespace(username=username)


@pytest.fixture(params=["win32", "darwin"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "platform", request.param)
    return str(request.param)


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("owner", ["root", "NT AUTHORITY\\SYSTEM", "AUTORITE NT\\Système", "me"])
@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_the_process_owner_decides(monkeypatch: pytest.MonkeyPatch, owner: str, accepted: bool) -> None:
    monkeypatch.setattr(sockets, "_psutil", lambda: Processes({None: "me", 7: owner}, accepted=accepted))
    assert check_peer(US, AGENT, "require") is None


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_another_users_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_psutil", lambda: Processes({None: "me", 7: "HOST\\mallory"}))
    with pytest.raises(PeerNotTrusted, match="mallory"):
        check_peer(US, AGENT, "warn")


@pytest.mark.parametrize("owners", [{}, {None: "me"}], ids=["no table", "no owner"])
@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_missing_rights_mean_that_nobody_can_tell(
    monkeypatch: pytest.MonkeyPatch, owners: dict[int | None, str]
) -> None:
    monkeypatch.setattr(sockets, "_psutil", lambda: Processes(owners))
    assert "AccessDenied" in str(check_peer(US, AGENT, "warn"))
    with pytest.raises(PeerNotTrusted):
        check_peer(US, AGENT, "require")


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_a_connection_that_is_not_listed_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_psutil", lambda: Processes({None: "me"}))
    assert "no process" in str(check_peer(US, ("127.0.0.1", 6889), "warn"))


@pytest.mark.usefixtures("elsewhere")
def test_the_real_psutil_has_what_is_used_of_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=5) as client,
        listener.accept()[0],
    ):
        assert check_peer(client.getsockname(), client.getpeername(), "require") is None


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("root", True),
        ("NT AUTHORITY\\SYSTEM", True),
        ("NT-AUTORITÄT\\SYSTEM", True),
        ("AUTORIDADE NT\\SISTEMA", True),
        ("NT AUTHORITY\\СИСТЕМА", True),
        ("HOST\\SYSTEM", False),
        ("NT AUTHORITY\\LOCAL SERVICE", False),
        ("HOST\\root", False),
        ("system", False),
        ("", False),
    ],
)
def test_the_systems_own_accounts(account: str, expected: bool) -> None:
    assert is_system(account) is expected
