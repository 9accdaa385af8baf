"""What all scenes have: the broker, the settings API, two environments, and how much is to be measured."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.broker import Broker, Certificate, mosquitto
from tests.benchmarks.order import Order
from tests.benchmarks.process import Process, measured
from tests.benchmarks.settings_api import settings_api


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: Rounds of each scene.
        messages: Messages that one process receives, or log calls that it makes, in one round.
        burst: Of these, how many come at once; fewer than ours keeps in memory for a handler, so that none is dropped.
        publications: What one process publishes in one round.
        rest: Seconds that a process rests.
        settle: Seconds from a start until memory at rest is read.
    """

    rounds: int = 5
    messages: int = 10_000
    burst: int = 500
    publications: int = 20_000
    rest: float = 60.0
    settle: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pythons:
    """Interpreters of two environments: ours has no extras, that of the peers has what they need."""

    ours: str
    peers: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A place to measure in."""

    broker: Broker
    api: str
    pythons: Pythons
    size: Size
    folder: Path

    def order(self, *, tls: bool = True, qos: int = 1, **others: Any) -> Order:
        """Return an order for this broker."""
        given = Order(port=self.broker.port(tls), tls=tls, qos=qos, api=self.api, burst=self.size.burst)
        return replace(given, **others)

    @contextmanager
    def peer(self, module: str, order: Order) -> Generator[Process]:
        """Run a module of `benchmarks.peers`."""
        with self._folder() as folder:
            command = [self.pythons.peers, "-m", f"benchmarks.peers.{module}"]
            with measured(command, order.environment(), folder) as process:
                yield process

    @contextmanager
    def ours(self, module: str, order: Order) -> Generator[Process]:
        """Run a plugin of `benchmarks.ours` as an agent would, but for its folders."""
        with self._folder() as folder:
            command = [self.pythons.ours, "-m", f"benchmarks.ours.{module}", "run", "--keeper-api-base", self.api]
            command += ["--data-dir", str(folder / "data"), "--lock-dir", str(folder / "lock")]
            with measured(command, order.environment(), folder) as process:
                yield process

    @contextmanager
    def _folder(self) -> Generator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)


@contextmanager
def staged(pythons: Pythons, size: Size) -> Generator[Stage]:
    """Set everything up, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="kepm-bench-") as name:
        folder = Path(name)
        certificate = Certificate.make(folder)
        with mosquitto(folder, certificate) as broker, settings_api(certificate, broker) as api:
            yield Stage(broker, api, pythons, size, folder)
