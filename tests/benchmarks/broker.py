"""One mosquitto for all peers, with and without TLS, and a watcher on it."""

import getpass
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from kepm_plugin.devagent.certificate import self_signed
from kepm_plugin.devagent.engines import free_port

PATIENCE: Final = 30.0
RUNNING: Final = re.compile(rb'"state": ?"running"')


@dataclass(frozen=True, slots=True)
class Certificate:
    """The agent's certificate, as files."""

    file: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificate":
        made = cls(folder / "certificate.pem", folder / "key.pem")
        certificate, key = self_signed()
        made.file.write_bytes(certificate)
        made.key.touch(0o600)
        made.key.write_bytes(key)
        return made

    def context(self) -> ssl.SSLContext:
        """Return a server's context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it listens."""

    plain: int
    tls: int
    version: str

    def port(self, tls: bool) -> int:
        return self.tls if tls else self.plain


def program() -> str:
    """Return mosquitto's path.

    Raises:
        FileNotFoundError: It is not installed.
    """
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
    if found is None:
        raise FileNotFoundError("mosquitto is missing; install it, for example with: sudo apt-get install mosquitto")
    return found


@contextmanager
def mosquitto(folder: Path, certificate: Certificate) -> Generator[Broker]:
    """Run a mosquitto as it is by default, but for its queues, which hold all that comes."""
    plain, tls = free_port(), free_port()
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"allow_anonymous true\nuser {getpass.getuser()}\nlog_type error\nmax_queued_messages 0\nset_tcp_nodelay true\n"
        f"listener {plain} 127.0.0.1\n"
        f"listener {tls} 127.0.0.1\ncertfile {certificate.file}\nkeyfile {certificate.key}\n",
        "utf-8",
    )
    told = subprocess.run([program(), "-h"], capture_output=True, text=True, check=False).stdout
    # What it says of the clients that are killed is of no interest; that it does not come up is told below.
    process = subprocess.Popen(
        [program(), "-c", str(configuration)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for port in (plain, tls):
            _until_it_accepts(process, port)
        yield Broker(plain, tls, next(iter(told.splitlines()), "").removeprefix("mosquitto version "))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _until_it_accepts(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise ConnectionRefusedError("mosquitto does not accept connections")


class Watcher:
    """Notes how many messages come on a topic, and when a status says that a plugin runs."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[str, list[float]] = defaultdict(list)
        self._counts: Counter[str] = Counter()

    def note(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        """Take a message; what the broker has retained says nothing about now."""
        now = time.monotonic()
        with self._changed:
            self._counts[message.topic] += 1
            if not message.retain and RUNNING.search(message.payload):
                self._running[message.topic].append(now)
            self._changed.notify_all()

    def running(self, topic: str, since: float = 0.0) -> float:
        """Return when a status first said "running", from then on, by `time.monotonic`.

        Raises:
            TimeoutError: It does not.
        """

        def found() -> float | None:
            return next((at for at in self._running[topic] if at >= since), None)

        with self._changed:
            at = self._changed.wait_for(found, PATIENCE)
        if at is None:
            raise TimeoutError(f"{topic} does not say that it runs")
        return at

    def number(self, topic: str) -> int:
        """Return how many messages have come on a topic."""
        with self._changed:
            return self._counts[topic]

    def count(self, topic: str, count: int) -> None:
        """Return when so many messages have come on a topic.

        Raises:
            TimeoutError: They do not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._counts[topic] >= count, PATIENCE):
                raise TimeoutError(f"{self._counts[topic]} of {count} messages came on {topic}")


@contextmanager
def watching(broker: Broker, *filters: str) -> Generator[Watcher]:
    """Watch topics for the time of the block; returns when the broker has confirmed it."""
    watcher, confirmed = Watcher(), threading.Event()

    def granted(*_: Any) -> None:
        confirmed.set()

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = watcher.note
    client.on_subscribe = granted
    client.connect("127.0.0.1", broker.plain)
    client.subscribe([(name, 0) for name in filters])
    client.loop_start()
    try:
        if not confirmed.wait(PATIENCE):
            raise TimeoutError("the broker did not confirm a subscription")
        yield watcher
    finally:
        client.disconnect()
        client.loop_stop()
