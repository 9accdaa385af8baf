"""Brokers to test a session against: real processes over TLS and the one in memory, each behind the same few verbs."""

import contextlib
import itertools
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from kepm_plugin.broker import BrokerAddress, Link, ProtocolChoice, SessionOptions, Version, open_session
from kepm_plugin.link import Session
from kepm_plugin.message import Publication, Received
from kepm_plugin.testing import MemoryBroker
from kepm_plugin.testing._memory import MemorySession

Deliver = Callable[[Sequence[Received]], None]


@pytest.fixture
def anyio_backend() -> str:
    """aiomqtt runs on asyncio alone."""
    return "asyncio"


class Inbox:
    """Collects what a session delivers."""

    def __init__(self) -> None:
        self.batches: list[list[Received]] = []
        self._news = anyio.Event()

    def deliver(self, batch: Sequence[Received]) -> None:
        self.batches.append(list(batch))
        self._news.set()
        self._news = anyio.Event()

    @property
    def messages(self) -> list[Received]:
        return [each for batch in self.batches for each in batch]

    @property
    def payloads(self) -> list[bytes]:
        return [each.payload for each in self.messages]

    async def until(self, count: int) -> list[Received]:
        """Return when that many messages are there."""
        with anyio.fail_after(10):
            while len(self.messages) < count:
                await self._news.wait()
        return self.messages


class Broker(Protocol):
    """What the contract needs of a broker; one of its own for each test, as far as names go."""

    def topic(self, name: str) -> str:
        """Return a topic that no other test uses."""
        ...

    def open(
        self,
        client: str,
        deliver: Deliver = ...,
        *,
        clean: bool = True,
        will: Publication | None = None,
        keep_alive: int = ...,
    ) -> AbstractAsyncContextManager[Session]:
        """Connect as a client that no other test uses."""
        ...

    def cut(self, session: Session) -> None:
        """End a session's connection without DISCONNECT."""
        ...

    def kill(self) -> None:
        """End the broker as `kill -9` does."""
        ...


def ignore(batch: Sequence[Received]) -> None:
    """For clients that only publish."""


_numbers = itertools.count()

PORTS = 3
"""How many are tried. Each was free a moment ago; tests in other processes look for free ones, too."""


class Process:
    """A broker in a process of its own."""

    def __init__(self, command: Sequence[str], port: int, bundle: Path, version: Version) -> None:
        self.address = BrokerAddress(host="127.0.0.1", port=port)
        self._bundle = bundle
        self._version: Version = version
        self._prefix = f"T{next(_numbers)}"
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def again(self) -> "Process":
        """Return the same broker for another test."""
        other = object.__new__(Process)
        other.__dict__.update(self.__dict__, _prefix=f"T{next(_numbers)}")
        return other

    def accepts(self) -> bool:
        """Tell whether it took a connection before it ended."""
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection((self.address.host, self.address.port), timeout=1).close()
                return True
            time.sleep(0.01)
        return False

    def topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    @asynccontextmanager
    async def open(
        self,
        client: str,
        deliver: Deliver = ignore,
        *,
        clean: bool = True,
        will: Publication | None = None,
        keep_alive: int = 60,
    ) -> AsyncGenerator[Session]:
        choice = ProtocolChoice()
        choice.version = self._version
        options = SessionOptions(
            client_id=f"{self._prefix}{client}",
            clean=clean,
            will=will,
            keep_alive=keep_alive,
            ca_bundle=self._bundle,
            connect_timeout=10,
        )
        async with open_session(self.address, options, choice, deliver) as session:
            assert session.version == self._version
            yield session

    def cut(self, session: Session) -> None:
        assert isinstance(session, Link)
        session.close("cut by the test")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(5)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def mosquitto(folder: Path, certificate: Any, version: Version) -> Generator[Process]:
    configuration = folder / "mosquitto.conf"
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/usr/bin:/usr/local/bin")
    assert program is not None, "install mosquitto (apt-get install mosquitto)"

    def prepare(port: int) -> Sequence[str]:
        configuration.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"certfile {certificate.file}\nkeyfile {certificate.key}\nmax_queued_messages 0\n"
        )
        return [program, "-c", str(configuration)]

    yield from running(prepare, certificate.file, version)


@contextmanager
def nats(folder: Path, certificate: Any) -> Generator[Process]:
    configuration = folder / "nats.conf"
    program = Path(sys.executable).with_name("nats-server")

    def prepare(port: int) -> Sequence[str]:
        configuration.write_text(
            f"""
            listen: "127.0.0.1:-1"
            server_name: "test"
            jetstream {{ store_dir: "{folder}" }}
            mqtt {{
                listen: "127.0.0.1:{port}"
                ack_wait: "1s"
                max_ack_pending: 1000
                tls {{ cert_file: "{certificate.file}", key_file: "{certificate.key}" }}
            }}
            """
        )
        return [str(program), "-c", str(configuration)]

    yield from running(prepare, certificate.file, "3.1.1")


def running(prepare: Callable[[int], Sequence[str]], bundle: Path, version: Version) -> Iterator[Process]:
    """Run a broker, on another port where somebody has taken the first one before it could."""
    broker = _accepting(prepare, bundle, version)
    try:
        yield broker
    finally:
        broker.kill()


def _accepting(prepare: Callable[[int], Sequence[str]], bundle: Path, version: Version) -> Process:
    for _ in range(PORTS):
        port = free_port()
        broker = Process(prepare(port), port, bundle, version)
        if broker.accepts():
            return broker
        broker.kill()
    raise AssertionError(f"the broker ended or does not accept, on {PORTS} ports")


@contextmanager
def engine(name: str, folder: Path, certificate: Any) -> Generator[Process]:
    if name == "nats":
        with nats(folder, certificate) as broker:
            yield broker
    else:
        with mosquitto(folder, certificate, "5" if name == "mosquitto-5" else "3.1.1") as broker:
            yield broker


class Memory:
    """The broker that authors test with."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()

    def topic(self, name: str) -> str:
        return f"T/{name}"

    def open(
        self,
        client: str,
        deliver: Deliver = ignore,
        *,
        clean: bool = True,
        will: Publication | None = None,
        keep_alive: int = 60,
    ) -> AbstractAsyncContextManager[Session]:
        return self._broker.connect(client, deliver, clean=clean, will=will)

    def cut(self, session: Session) -> None:
        assert isinstance(session, MemorySession)
        session.cut("cut by the test")

    def kill(self) -> None:
        self._broker.kill()


ENGINES = ["mosquitto-5", "mosquitto-3.1.1", "nats", "memory"]


@pytest.fixture(scope="session", params=ENGINES)
def shared_broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Any
) -> Iterator[Process | None]:
    if request.param == "memory":
        yield None
        return
    with engine(str(request.param), tmp_path_factory.mktemp("engine"), certificate) as started:
        yield started


@pytest.fixture
def broker(shared_broker: Process | None) -> Broker:
    """A broker that the test shares with others, under names of its own; that in memory is new each time."""
    return Memory() if shared_broker is None else shared_broker.again()


@pytest.fixture(params=ENGINES)
def mortal_broker(request: pytest.FixtureRequest, tmp_path: Path, certificate: Any) -> Iterator[Broker]:
    """A broker that the test may kill."""
    if request.param == "memory":
        yield Memory()
        return
    with engine(str(request.param), tmp_path, certificate) as started:
        yield started


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()
