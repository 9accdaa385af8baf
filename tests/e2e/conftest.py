"""A plugin of our own under a local agent, as real processes."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `probe_plugin` and `agent_process` stand beside the tests.

from kepm_plugin.manifest import manifest_of, to_json

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


@pytest.fixture(params=["mosquitto", "nats"])
def engine(request: pytest.FixtureRequest) -> str:
    """The broker behind the gate."""
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An agent root in which the probe is registered."""
    from probe_plugin import Probe

    root, work = tmp_path / "agent root", tmp_path / "work"
    (root / "Plugins").mkdir(parents=True)
    work.mkdir()
    script = shlex.join([str(HERE / "probe_plugin.py"), "--work", str(work), "--keeper-api-base"])
    manifest = manifest_of(
        Probe.declarations(), executable=sys.executable, arguments=f"{script} {{KeeperApiBaseUrl}}"
    )
    (root / "Plugins" / "Probe.json").write_bytes(to_json(manifest))
    return Site(root, work)
