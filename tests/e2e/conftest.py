"""A plugin of our own under a local agent, as real processes."""

import shlex
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kepm_plugin import Plugin
from kepm_plugin.manifest import manifest_of, to_json
from tests.e2e.agent_process import AgentProcess, agent_process
from tests.e2e.probe_plugin import Probe

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Site:
    """An agent root with the probe in it."""

    root: Path
    work: Path

    def ledger(self) -> list[tuple[int, str]]:
        """Return what the probe noted: process and text."""
        path = self.work / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]


@dataclass(frozen=True)
class Running:
    """A site with its agent."""

    site: Site
    agent: AgentProcess


@pytest.fixture(params=["mosquitto", "nats"])
def engine(request: pytest.FixtureRequest) -> str:
    """The broker behind the gate."""
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An agent root in which the probe is registered."""
    return make_site(tmp_path)


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A site and its agent, for the tests that leave both as they were."""
    site = make_site(tmp_path_factory.mktemp(str(request.param)))
    with agent_process(site.root, "--broker", str(request.param)) as agent:
        yield Running(site, agent)


def make_site(
    folder: Path, work: Path | None = None, *, kind: type[Plugin] = Probe, file: str = "probe_plugin.py"
) -> Site:
    """Register the probe, or another plugin, in a new agent root, whose name has a space.

    `work` may be that of another site.
    """
    root, work = folder / "agent root", work or folder / "work"
    (root / "Plugins").mkdir(parents=True)
    work.mkdir(exist_ok=True)
    script = shlex.join([str(HERE / file), "--work", str(work), "--keeper-api-base"])
    manifest = manifest_of(kind.declarations(), executable=sys.executable, arguments=f"{script} {{KeeperApiBaseUrl}}")
    (root / "Plugins" / f"{kind.id}.json").write_bytes(to_json(manifest))
    return Site(root, work)
