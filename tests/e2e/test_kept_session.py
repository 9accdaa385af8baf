"""`clean_session = False`: in the manifest, in CONNECT, and in what comes of it, on each broker."""
# pyright: reportPrivateUsage=false

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin.devagent import DevAgent, DevOptions, dev_agent
from kepm_plugin.devagent.faults import Reset
from kepm_plugin.devagent.packets import PUBACK
from kepm_plugin.devagent.sender import command_topic, engine_client
from kepm_plugin.manifest import manifest_of, to_json
from tests.e2e import kept_plugin
from tests.e2e.kept_plugin import Kept


@pytest.fixture
def anyio_backend() -> str:
    """The local agent runs on asyncio."""
    return "asyncio"


def install(root: Path, work: Path) -> dict[str, Any]:
    """Register the plugin in an agent root; return its manifest."""
    (root / "Plugins").mkdir(parents=True)
    work.mkdir()
    script = shlex.join([kept_plugin.__file__, "--work", str(work), "--keeper-api-base"])
    manifest = manifest_of(Kept.declarations(), executable=sys.executable, arguments=f"{script} {{KeeperApiBaseUrl}}")
    (root / "Plugins" / "Kept.json").write_bytes(to_json(manifest))
    content: dict[str, Any] = json.loads(to_json(manifest))
    return content


async def publish(agent: DevAgent, *texts: str) -> None:
    """Send commands without waiting for answers; return when the broker has them."""
    async with engine_client(agent._engine) as client:
        for text in texts:
            client.publish(command_topic("Kept", "note"), json.dumps({"text": text}).encode())
            await client.expect(PUBACK)


@pytest.mark.parametrize(
    ("broker", "mqtt5", "version"),
    [
        ("mosquitto", True, "5"),
        ("mosquitto", False, "3.1.1"),
        ("nats", True, "3.1.1"),
    ],
)
async def test_what_was_sent_while_the_plugin_was_away_is_handled(
    tmp_path: Path, broker: Any, mqtt5: bool, version: str
) -> None:
    lines: list[str] = []
    manifest = install(tmp_path / "root", tmp_path / "work")
    assert manifest["Subscription"] == {"Topic": "Kept", "Qos": 1, "CleanSession": False}
    options = DevOptions(root=tmp_path / "root", broker=broker, mqtt5=mqtt5, echo=lines.append)
    texts = [str(number) for number in range(30)]  # more than a broker has in flight
    with anyio.fail_after(30):
        async with dev_agent(options) as agent:
            await agent.send("Kept", "note", {"text": "before"})
            await agent.stop("Kept")
            await publish(agent, *texts)
            await agent.start("Kept")
            await agent.send("Kept", "note", {"text": "after"})
            await agent.fault(Reset(count=1, plugin="Kept"))
            await agent.send("Kept", "note", {"text": "again"})
    ledger = (tmp_path / "work" / "ledger").read_text().splitlines()
    assert ledger == ["before", *texts, "after", "gap: session present True, dropped 0", "again"]
    ups = [line for line in lines if "link.up" in line]
    assert all(f"mqtt={version} " in line for line in ups)
    assert "sessionpresent=false" in ups[0].lower()
    assert "sessionpresent=true" in ups[-1].lower()
