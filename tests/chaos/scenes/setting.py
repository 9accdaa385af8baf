"""What a stage is made of: which broker, how the plugin is declared, and the manifests by which the agent launches."""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kepm_plugin.manifest import manifest_of, to_json
from tests.chaos.scenes.scene_plugin import Scene
from tests.chaos.scenes.source import FILTERS

Engine = Literal["mosquitto", "nats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Which broker, and how the plugin is declared."""

    broker: Engine = "mosquitto"
    embedded: bool = False
    journal: bool = True
    options: tuple[str, ...] = ()
    """Further arguments of the local agent."""
    outbox: Literal["memory", "disk"] = "memory"
    forget: int | None = None
    """The plugin forgets some messages of this QoS."""
    quiet: float = 10.0
    """Seconds without any progress after which what was not handled is taken for lost."""

    @property
    def agent_arguments(self) -> tuple[str, ...]:
        """Arguments of the local agent."""
        model = "embedded" if self.embedded else "classic"
        return ("--broker", self.broker, "--broker-model", model, *self.options)


def register(setting: Setting, root: Path, work: Path) -> None:
    """Write the manifests of plugin and source into the agent's root; both find the board in `work`."""
    journal = () if setting.journal else ("--no-journal",)
    forget = () if setting.forget is None else ("--forget", str(setting.forget))
    options = ["--work", str(work), "--outbox", setting.outbox, *journal, *forget]
    command = shlex.join(["-m", "tests.chaos.scenes.actor", *options, "--api-base"])
    manifest = manifest_of(Scene.declarations(), executable=sys.executable, arguments=f"{command} {{KeeperApiBaseUrl}}")
    (root / "Plugins" / "Scene.json").write_bytes(to_json(manifest))
    content = {
        "id": "Source",
        "name": "Source",
        "version": "1.0.0",
        "pluginType": "Executable",
        "executablePath": sys.executable,
        "arguments": shlex.join(["-m", "tests.chaos.scenes.source", "--root", str(root), "--work", str(work)]),
        "supportedPlatforms": ["Linux", "macOS"],
        "Subscription": {"Topic": "Source", "Qos": 1, "CleanSession": False},
        "metadata": {
            "mqttTopics": {
                "publish": ["Scene/Events/#", "Scene/Commands/+"],
                "subscribe": list(FILTERS),
            }
        },
    }
    (root / "Plugins" / "Source.json").write_text(json.dumps(content))
