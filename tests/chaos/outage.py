"""The broker is gone while a plugin publishes, and the plugin is killed: does everything arrive, and in order?

    python -m tests.chaos.outage --seconds 60 --events 5000

prints what happened, and ends with 1 where an event is missing or out of its order, or more came twice than was in
flight at a kill.
"""

import argparse
import shlex
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kepm_plugin.broker._connection import IN_FLIGHT
from kepm_plugin.manifest import manifest_of, to_json
from tests.chaos.outage_plugins import Sink, Source
from tests.e2e.agent_process import agent_process

PATIENCE = 60.0
"""Seconds, after the broker is back, in which everything has to arrive."""


@dataclass(frozen=True, kw_only=True)
class Outage:
    """What happened.

    Attributes:
        published: Numbers of the events, as their publisher noted them.
        arrived: Numbers as the other plugin noted them.
        meanwhile: How many were published when the broker was back.
        kills: How many of all were published, and had arrived, at each kill.
        recovered: Seconds from the broker's return until the last one had arrived.
    """

    events: int
    published: list[int]
    arrived: list[int]
    meanwhile: int
    kills: list[tuple[int, int]]
    recovered: float

    @property
    def missing(self) -> list[int]:
        """Events that did not arrive."""
        return sorted(set(range(self.events)) - set(self.arrived))

    @property
    def disordered(self) -> list[int]:
        """Events that arrived, for the first time, after a later one."""
        firsts = list(dict.fromkeys(self.arrived))
        return [late for before, late in pairwise(firsts) if late < before]

    @property
    def twice(self) -> int:
        """How many arrivals were not the first of their event."""
        return sum(times - 1 for times in Counter(self.arrived).values())

    @property
    def allowed_twice(self) -> int:
        """What was in flight at a kill, and the event that was published and not noted."""
        return len(self.kills) * (IN_FLIGHT + 1)

    def faults(self) -> list[str]:
        """Return what is wrong."""
        found: list[str] = []
        if self.missing:
            found.append(f"{len(self.missing)} events are missing, as {self.missing[:5]}")
        if self.disordered:
            found.append(f"{len(self.disordered)} events are out of their order, as {self.disordered[:5]}")
        if self.twice > self.allowed_twice:
            found.append(f"{self.twice} events came again; {self.allowed_twice} were in flight at a kill, at most")
        return found


def outage(folder: Path, *, broker: str, seconds: float, events: int) -> Outage:
    """Have events published while the broker is gone for so long; kill the publisher then, and while it catches up."""
    root, work = folder / "root", folder / "work"
    (root / "Plugins").mkdir(parents=True)
    work.mkdir()
    for kind in (Source, Sink):
        arguments = shlex.join([str(Path(__file__).with_name("outage_plugins.py")), kind.id, "--keeper-api-base"])
        manifest = manifest_of(
            kind.declarations(), executable=sys.executable, arguments=f"{arguments} {{KeeperApiBaseUrl}}"
        )
        (root / "Plugins" / f"{kind.id}.json").write_bytes(to_json(manifest))
    given = {"OUTAGE_WORK": str(work), "OUTAGE_EVENTS": str(events), "OUTAGE_SECONDS": str(seconds * 0.7)}
    kills: list[tuple[int, int]] = []

    def kill() -> None:
        agent.control.kill_plugin("Source", "SIGKILL")
        kills.append((len(noted(work, "published")), len(noted(work, "arrived"))))

    with agent_process(root, "--broker", broker, env=given, measured=False) as agent:
        for kind in (Source, Sink):
            agent.until(rf"^{kind.id} .*link\.up")
        mark = agent.mark()
        agent.control.send("Source", "go")
        agent.control.kill_engine(seconds)
        agent.until(r"^Source .*half of the events", after=mark, timeout=seconds + PATIENCE)
        kill()
        agent.until(r"accepts again", after=mark, timeout=seconds + PATIENCE)
        back, meanwhile = time.monotonic(), len(noted(work, "published"))
        agent.until(r"^Sink .*a quarter of the events", after=mark, timeout=PATIENCE)
        kill()
        agent.until(r"^Sink .*all events have arrived", after=mark, timeout=PATIENCE)
        recovered = time.monotonic() - back
    return Outage(
        events=events,
        published=noted(work, "published"),
        arrived=noted(work, "arrived"),
        meanwhile=meanwhile,
        kills=kills,
        recovered=recovered,
    )


def noted(work: Path, name: str) -> list[int]:
    """Return the numbers that a plugin has noted."""
    path = work / name
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def told(found: Outage, given: Any) -> str:
    """Return the figures."""
    kills = ", ".join(f"after {published} published and {arrived} arrived" for published, arrived in found.kills)
    return (
        f"broker {given.broker}, gone for {given.seconds:g} s: {found.meanwhile} of {found.events} events published "
        f"when it was back\nkills: {kills}\narrived: {len(set(found.arrived))}, missing: {len(found.missing)}, out of "
        f"order: {len(found.disordered)}, twice: {found.twice} (allowed: {found.allowed_twice})\n"
        f"all arrived {found.recovered:.1f} s after the broker was back"
    )


def main() -> int:
    """Play an outage and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the broker is gone")
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--broker", choices=["mosquitto", "nats"], default="mosquitto")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="outage-") as folder:
        found = outage(Path(folder), broker=given.broker, seconds=given.seconds, events=given.events)
    print(told(found, given))
    for fault in found.faults():
        print(f"FAILED: {fault}")
    return 1 if found.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
