"""The real thing: a broker, the settings API and plugins in a few processes; the agent is killed, and comes back.

What is measured is in `Measured`; with a single plugin it is what one attempt and one connection cost.
"""

import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from kepm_plugin.devagent.engines import free_port
from tests.benchmarks.broker import Certificate, program
from tests.benchmarks.process import Process
from tests.fleet.model import Costs

REPOSITORY: Final = Path(__file__).parents[2]
SETTLED: Final = 2.0
"""Seconds after the last one serves, for what follows a reconnect."""
PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of one outage; times are in seconds after the broker's return, and of a processor."""

    plugins: int
    served: list[float]
    refused: int
    given_up: int
    peak: float
    """Attempts to connect per second, in the busiest tenth of one."""
    outage_cpu: float
    """What the plugins took while the broker was away."""
    return_cpu: float
    """What they took from its return until nothing more followed."""
    connect_cpu: float
    """Of that, what they took until the last one served."""
    broker_cpu: float
    api_cpu: float
    processors: float
    """How much of them the plugins got, all together, whenever they had something to do."""


def cpu(pid: int) -> float:
    """Return the seconds of a processor that a process has taken, with its threads that have ended.

    By its clock, as `clock_getcpuclockid` names it on Linux: what /proc has is in hundredths, or of living threads.
    """
    return time.clock_gettime(~pid << 3 | 2)


class Agent:
    """A mosquitto with TLS and the settings API, each in its process, at ports that stay."""

    def __init__(self, folder: Path) -> None:
        certificate = Certificate.make(folder)
        self._broker_port, self._api_port = free_port(), free_port()
        self.address = f"https://127.0.0.1:{self._api_port}"
        configuration = folder / "mosquitto.conf"
        configuration.write_text(
            f"allow_anonymous true\nuser {getpass.getuser()}\nlog_type error\nset_tcp_nodelay true\n"
            f"listener {self._broker_port} 127.0.0.1\ncertfile {certificate.file}\nkeyfile {certificate.key}\n",
            "utf-8",
        )
        files = [str(certificate.file), str(certificate.key)]
        self._commands = (
            [program(), "-c", str(configuration)],
            [sys.executable, "-m", "tests.fleet.api", str(self._api_port), str(self._broker_port), *files],
        )
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both; they listen some hundredths of a second later."""
        self._running = [
            subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in self._commands
        ]

    def kill(self) -> None:
        """Kill both."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait(PATIENCE)
        self._running = []

    def cpu(self) -> tuple[float, float]:
        """Return what broker and API have taken since their start."""
        broker, api = (cpu(process.pid) for process in self._running)
        return broker, api


class Fleet:
    """The plugins, in their processes."""

    def __init__(self, agent: Agent, processes: list[tuple[Process, int]]) -> None:
        self._agent, self._processes = agent, processes
        self.plugins = sum(count for _, count in processes)

    def all_serve(self) -> list[dict[str, Any]]:
        """Return what each process tells when all of its plugins serve."""
        return [process.told("all serve", PATIENCE) for process, _ in self._processes]

    def outage(self, seconds: float, settled: float = SETTLED) -> Measured:
        """Have one, and measure it."""
        before = self._cpu()
        self._agent.kill()
        time.sleep(seconds)
        away, waited = self._cpu(), self._waited()
        self._agent.start()
        back = time.monotonic()
        told = self.all_serve()
        up, waited = self._cpu(), self._waited() - waited
        time.sleep(settled)
        after, (broker, api) = self._cpu(), self._agent.cpu()
        attempts = [each for one in told for each in one["attempts"]]
        outcomes = [each["outcome"] for each in attempts]
        return Measured(
            plugins=self.plugins,
            served=sorted(at - back for one in told for at in one["served"]),
            refused=outcomes.count("refused"),
            given_up=outcomes.count("gave up"),
            peak=_peak([each["at"] for each in attempts if each["at"] >= back]),
            outage_cpu=away - before,
            return_cpu=after - away,
            connect_cpu=up - away,
            broker_cpu=broker,
            api_cpu=api,
            processors=len(self._processes) * (up - away) / (up - away + waited),
        )

    def _cpu(self) -> float:
        return sum(cpu(process.pid) for process, _ in self._processes)

    def _waited(self) -> float:
        """Return for how many seconds their threads would have run, and others did."""
        threads = [each for process, _ in self._processes for each in Path(f"/proc/{process.pid}/task").iterdir()]
        return sum(int((thread / "schedstat").read_text("ascii").split()[1]) for thread in threads) / 1e9


def _peak(times: list[float], window: float = 0.1) -> float:
    times = sorted(times)
    return max((sum(at <= each < at + window for each in times[i:]) for i, at in enumerate(times)), default=0) / window


@contextmanager
def fleet(plugins: int, processes: int = 2) -> Generator[Fleet]:
    """Run so many plugins against an agent, all of which serve; in no more processes than there are plugins."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kepm-fleet-")))
        agent = Agent(folder)
        agent.start()
        stack.callback(agent.kill)
        made: list[tuple[Process, int]] = []
        for number in range(processes := min(processes, plugins)):
            first, end = plugins * number // processes, plugins * (number + 1) // processes
            made.append((stack.enter_context(_plugins(agent.address, first, end - first, folder)), end - first))
        found = Fleet(agent, made)
        found.all_serve()
        yield found


def started(plugins: int) -> tuple[list[float], float, int]:
    """Start so many processes with one plugin each, all at once, as an agent that begins anew.

    Returns:
        The seconds after which they served, in order; those of a processor that one took; attempts that led to nothing.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kepm-fleet-")))
        agent = Agent(folder)
        agent.start()
        stack.callback(agent.kill)
        since = time.monotonic()
        processes = [stack.enter_context(_plugins(agent.address, number, 1, folder)) for number in range(plugins)]
        told = [process.told("all serve", PATIENCE) for process in processes]
        served = sorted(at - since for one in told for at in one["served"])
        failed = sum(each["outcome"] != "connected" for one in told for each in one["attempts"])
        return served, sum(cpu(process.pid) for process in processes) / plugins, failed


@contextmanager
def _plugins(api: str, first: int, count: int, folder: Path) -> Generator[Process]:
    errors = folder / f"errors-{first}"
    command = [sys.executable, "-m", "tests.fleet.plugins", str(count), str(first), api]
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    with errors.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=file
        )
    one = Process(process, errors)
    try:
        yield one
    finally:
        process.send_signal(signal.SIGKILL)
        one.finish()
        assert process.stdout is not None
        process.stdout.close()


def calibrated(rounds: int = 5, outage: float = 1.0, many: int = 20) -> Costs:
    """Measure what one attempt and one connection cost, in a process that has nothing else to do."""
    with fleet(1) as single:
        alone = [single.outage(outage) for _ in range(rounds)]
    with fleet(many) as several:
        crowd = [several.outage(outage) for _ in range(rounds)]

    def of_one(figure: Callable[[Measured], float]) -> float:
        return median(map(figure, alone))

    def of_each_more(figure: Callable[[Measured], float]) -> float:
        """Return what each further plugin has an agent do."""
        return max(0.0, median(map(figure, crowd)) - of_one(figure)) / (many - 1)

    connect = of_one(lambda one: one.connect_cpu)
    return Costs(
        refused=of_one(lambda one: one.outage_cpu / max(1, one.refused)),
        connect=connect,
        after=max(0.0, of_one(lambda one: one.return_cpu) - connect),
        broker=of_each_more(lambda one: one.broker_cpu),
        api=of_each_more(lambda one: one.api_cpu),
    )
