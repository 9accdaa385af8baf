"""What a trusted, or untrusted, other end may do to us with its answers: bounded in time and size, and led nowhere."""

import gzip
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import httpx
import pytest

from kepm_plugin.agent import ANSWER_LIMIT, open_agent
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.errors import AgentUnreachable, BadAgentAnswer, PeerNotTrusted
from tests.trust.attempts import Way, over_https, over_mqtt
from tests.trust.cases import Kit
from tests.trust.impostor import PATIENCE, Listener

SHORT: Final = 0.2
"""Seconds that what does not answer is waited for."""
DRIP: Final = 0.02
"""Seconds between two bytes of who takes his time: far fewer come in `SHORT` than would be needed."""


@pytest.fixture
def anyio_backend() -> str:
    """aiomqtt runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The certificates."""
    return Kit(tmp_path_factory.mktemp("kit"))


async def ask(listener: Listener, timeout: float = PATIENCE) -> dict[str, str]:
    """Ask for settings, and return when the other end has seen us hang up, while the client is still open."""
    with anyio.fail_after(2 * PATIENCE):
        async with open_agent(f"https://127.0.0.1:{listener.port}", timeout=timeout) as agent:
            try:
                return await agent.settings("MyWorker")
            finally:
                await anyio.to_thread.run_sync(listener.left.wait, PATIENCE)
                assert listener.left.is_set(), "the connection stays open"


async def connect(listener: Listener, timeout: float = PATIENCE) -> None:
    """Connect to it as a broker."""
    address = BrokerAddress(host="127.0.0.1", port=listener.port)
    with anyio.fail_after(2 * PATIENCE):
        options = SessionOptions(client_id="MyWorker", connect_timeout=timeout)
        async with open_session(address, options, ProtocolChoice(), lambda _: None):
            raise AssertionError("it is no broker")


# --- the environment ------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listener:
    """An environment that sends everybody to a proxy, to other certificates, and tells the keys of TLS."""
    proxy = Listener(kit.other.context())
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WSS_PROXY"):
        for spelt in (name, name.lower()):
            monkeypatch.setenv(spelt, f"http://127.0.0.1:{proxy.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(kit.agent.file))
    monkeypatch.setenv("SSL_CERT_DIR", str(kit.folder))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    return proxy


async def test_no_variable_leads_anywhere_else(kit: Kit, proxy: Listener, tmp_path: Path) -> None:
    with proxy, Listener(kit.agent.context()) as agent:
        for bundle in (None, kit.agent.file):
            way = Way("127.0.0.1", agent.port, bundle)
            assert (await over_https(way)).said is (await over_mqtt(way)).said is None
        assert proxy.connections == 0
        assert not (tmp_path / "keys").exists()


async def test_no_variable_brings_certificates_along(kit: Kit, proxy: Listener) -> None:
    with proxy, Listener(kit.agent.context()) as agent:
        way = Way("127.0.0.1", agent.port, kit.other.file)
        for outcome in (await over_https(way), await over_mqtt(way)):
            assert isinstance(outcome.said, PeerNotTrusted)


async def test_whoever_honours_these_variables_is_led_astray(kit: Kit, proxy: Listener, tmp_path: Path) -> None:
    """So that the two tests above can fail."""
    with proxy:
        async with httpx.AsyncClient(verify=ssl.create_default_context(), timeout=PATIENCE) as client:
            with pytest.raises(httpx.HTTPError):
                await client.get("https://127.0.0.1:1/")
        assert proxy.connections == 1
    assert ssl.create_default_context().keylog_filename == str(tmp_path / "keys")
    assert ssl.create_default_context().cert_store_stats()["x509"] == 1


# --- where an answer leads ------------------------------------------------------------------------------------------


def head(code: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {code}", *fields, "", "")).encode()


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1:{}/hop", "http://127.0.0.1:{}/hop", "//localhost:{}/hop", "/hop"]
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(kit: Kit, code: int, target: str) -> None:
    with Listener(kit.agent.context()) as elsewhere:
        location = target.format(elsewhere.port)

        def respond(secure: ssl.SSLSocket, request: bytes) -> None:
            secure.sendall(head(f"{code} Moved", f"Location: {location}", "Content-Length: 0", "Connection: close"))
            secure.close()

        with Listener(kit.agent.context(), respond=respond) as agent:
            with pytest.raises(BadAgentAnswer, match=rf"redirected \({code}\) to .*/hop, which is not followed"):
                await ask(agent)
            assert agent.heard.count(b"GET ") == 1
        assert elsewhere.connections == 0


# --- how much -------------------------------------------------------------------------------------------------------


def repeated(start: bytes, again: bytes) -> Callable[[ssl.SSLSocket, bytes], None]:
    """Answer without end, until the other end hangs up."""

    def respond(secure: ssl.SSLSocket, request: bytes) -> None:
        secure.sendall(start)
        while True:
            secure.sendall(again)

    return respond


def once(answer: bytes) -> Callable[[ssl.SSLSocket, bytes], None]:
    """Answer, and wait for the other end to hang up."""

    def respond(secure: ssl.SSLSocket, request: bytes) -> None:
        secure.sendall(answer)

    return respond


CHUNK: Final = b"%x\r\n%b\r\n" % (65_536, b" " * 65_536)
BOMB: Final = b" " * 8 * 2**20
PACKED: Final = {
    "gzip": gzip.compress(BOMB),
    "deflate": zlib.compress(BOMB),
    "GZIP": gzip.compress(BOMB),
    "gzip, gzip": gzip.compress(gzip.compress(BOMB)),
}


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (once(head("200 OK", f"Content-Length: {ANSWER_LIMIT + 1}") + b" " * (ANSWER_LIMIT + 1)), "longer than"),
        (repeated(head("200 OK", "Transfer-Encoding: chunked"), CHUNK), "longer than"),
        (repeated(head("200 OK", "Connection: close"), b" " * 65_536), "longer than"),
        *(
            (once(head("200 OK", f"Content-Encoding: {name}", f"Content-Length: {len(packed)}") + packed), "compressed")
            for name, packed in PACKED.items()
        ),
    ],
    ids=["length", "chunked", "until closed", *PACKED],
)
async def test_an_answer_without_end_or_a_bomb_is_refused(
    kit: Kit, respond: Callable[[ssl.SSLSocket, bytes], None], words: str
) -> None:
    with Listener(kit.agent.context(), respond=respond) as agent, pytest.raises(BadAgentAnswer, match=words):
        await ask(agent)


@pytest.mark.parametrize(
    "respond",
    [
        repeated(b"HTTP/1.1 200 OK\r\n", b"X-Flood: %b\r\n" % (b"x" * 8192)),
        repeated(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 8192),
        repeated(b"HTTP/1.1 ", b"2" * 8192),
        repeated(head("200 OK", "Transfer-Encoding: chunked") + b"0\r\n", b"X-Trailer: %b\r\n" % (b"x" * 8192)),
    ],
    ids=["headers", "one header", "status line", "trailers"],
)
async def test_headers_without_end_are_refused(kit: Kit, respond: Callable[[ssl.SSLSocket, bytes], None]) -> None:
    with (
        Listener(kit.agent.context(), respond=respond) as agent,
        pytest.raises(AgentUnreachable, match="is the agent running"),
    ):
        await ask(agent)


async def test_interim_answers_without_end_are_given_up(kit: Kit) -> None:
    with (
        Listener(kit.agent.context(), respond=repeated(b"", head("103 Early Hints") * 100)) as agent,
        pytest.raises(AgentUnreachable, match=r"no answer within 0\.2 s"),
    ):
        await ask(agent, SHORT)


# --- how long -------------------------------------------------------------------------------------------------------


def dripping(start: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Send byte by byte, without end."""

    def respond(sock: socket.socket, request: bytes = b"") -> None:
        sock.sendall(start)
        while True:
            sock.sendall(again)
            time.sleep(DRIP)

    return respond


def mute(sock: socket.socket, request: bytes = b"") -> None:
    """Read and say nothing."""
    while sock.recv(65_536):
        pass


HELLO: Final = b"\x16\x03\x03\x40\x00"
"""The start of a TLS record of 16 KiB, as a server begins its handshake."""


@pytest.mark.parametrize("greet", [mute, dripping(HELLO, b"\x02")], ids=["mute", "dripping"])
async def test_a_handshake_that_does_not_end_is_given_up(kit: Kit, greet: Callable[[socket.socket], None]) -> None:
    with (
        Listener(kit.agent.context(), greet=greet) as agent,
        pytest.raises(AgentUnreachable, match=r"no answer within 0\.2 s"),
    ):
        await ask(agent, SHORT)
    with Listener(kit.agent.context(), greet=greet) as broker:
        with pytest.raises(AgentUnreachable, match=r"does not finish the TLS handshake: gave up after 0\.2 s"):
            await connect(broker, SHORT)
        assert broker.left.wait(PATIENCE)


@pytest.mark.parametrize(
    "respond",
    [
        mute,
        dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        dripping(head("200 OK", "Content-Length: 100000"), b" "),
        dripping(head("200 OK", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
    ],
    ids=["mute", "headers", "body", "chunks"],
)
async def test_an_answer_that_takes_its_time_is_given_up(
    kit: Kit, respond: Callable[[ssl.SSLSocket, bytes], None]
) -> None:
    with (
        Listener(kit.agent.context(), respond=respond) as agent,
        pytest.raises(AgentUnreachable, match=r"no answer within 0\.2 s"),
    ):
        await ask(agent, SHORT)


@pytest.mark.parametrize("respond", [mute, dripping(b"\x20\xff\xff\xff\x7f", b"\0")], ids=["mute", "dripping"])
async def test_a_connack_that_takes_its_time_is_given_up(
    kit: Kit, respond: Callable[[ssl.SSLSocket, bytes], None]
) -> None:
    with Listener(kit.agent.context(), respond=respond) as broker:
        with pytest.raises(AgentUnreachable, match=r"gave up after 0\.2 s"):
            await connect(broker, SHORT)
        assert broker.left.wait(PATIENCE)


@pytest.mark.parametrize(
    "respond", [once(head("200 OK", "Content-Length: 2", "Connection: close") + b"{}"), mute], ids=["answered", "mute"]
)
async def test_a_request_given_up_at_any_moment_leaves_no_connection_open(
    kit: Kit, respond: Callable[[ssl.SSLSocket, bytes], None]
) -> None:
    """httpcore forgets those that are cancelled at certain moments, and a plugin asks for years."""
    with Listener(kit.agent.context(), respond=respond) as listener:
        async with open_agent(f"https://127.0.0.1:{listener.port}", timeout=PATIENCE) as agent:
            for step in range(60):
                with anyio.move_on_after(0.0005 * 1.08**step):
                    await agent.settings("MyWorker")
            assert await anyio.to_thread.run_sync(listener.all_left)
        assert listener.connections > 10


async def test_a_queue_that_is_full_is_given_up_too(kit: Kit) -> None:
    """The kernel takes no more connections for a listener that accepts none, and answers nothing."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname(), timeout=PATIENCE):
            way = Way("127.0.0.1", full.getsockname()[1], patience=SHORT)
            for outcome in (await over_https(way), await over_mqtt(way)):
                assert isinstance(outcome.said, AgentUnreachable)
                assert "0.2 s" in str(outcome.said)
