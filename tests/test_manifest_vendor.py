"""The vendor's documented examples, each declared in Python and compared field by field with the vendor's JSON.

The JSON is what the pages print (Plugin Guide; Plugin Min Windows, Linux, macOS; Plugin Cmd-Resp; Plugin Manual). The
descriptions of MyWorker and MyOnDemand, and the version of both, are placeholders there and ours here.
"""

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.manifest import manifest_of, to_json


class Minimal(Plugin):
    """Long-running bridge component."""

    id = "MyBridge"
    name = "My Bridge"
    version = "1.0.0"
    qos = 2
    heartbeat = None
    echo = False


@Minimal.topic("")
class MinimalPrimary(Handler[Minimal]):
    async def handle(self, message: Message[bytes]) -> None: ...


@Minimal.topic("Commands/{verb}")
class MinimalCommands(Handler[Minimal]):
    async def handle(self, message: Message[bytes]) -> None: ...


class Annotated(Plugin):
    """Long-running bridge component."""

    id = "MyBridge"
    name = "My Bridge"
    version = "1.0.0"
    qos = 2
    heartbeat = None
    echo = False


@Annotated.command("{verb}")
class AnnotatedCommands(Handler[Annotated]):
    async def handle(self, message: Message[bytes]) -> str:
        return ""


class Worker(Plugin):
    """Receives commands and publishes responses over MQTT."""

    id = "MyWorker"
    name = "My Worker"
    version = "1.0.0"
    startup_priority = 50
    qos = 2
    echo = False


@Worker.command("{verb}")
class WorkerCommands(Handler[Worker]):
    async def handle(self, message: Message[bytes]) -> str:
        return ""


class OnDemand(Plugin):
    """Started by hand."""

    id = "MyOnDemand"
    name = "My On Demand"
    version = "1.0.0"
    startup_priority = 80
    auto_start = False
    requires_monitoring = False
    auto_restart = False
    qos = 2
    heartbeat = None
    echo = False


@OnDemand.topic("")
class OnDemandPrimary(Handler[OnDemand]):
    async def handle(self, message: Message[bytes]) -> None: ...


MINIMAL: dict[str, Any] = json.loads(
    """
{
  "id": "MyBridge", "name": "My Bridge", "description": "Long-running bridge component.", "version": "1.0.0",
  "pluginType": "Executable",
  "executablePath": "bin/MyBridge/MyBridge.exe",
  "supportedPlatforms": ["Windows"],
  "Subscription": { "Topic": "MyBridge", "Qos": 2, "CleanSession": true },
  "metadata": {
    "mqttRole": ["subscriber", "publisher"],
    "mqttTopics": { "publish": ["KeeperLogger"], "subscribe": ["MyBridge", "MyBridge/Commands/+"] }
  },
  "startupPriority": 60, "autoStart": true, "executionContext": "Service",
  "requiresMonitoring": true, "autoRestart": true
}
"""
)


def vendor(publish: list[str], subscribe: list[str], **fields: Any) -> dict[str, Any]:
    """Return the minimal example with what another one changes, in the vendor's order."""
    metadata = MINIMAL["metadata"] | {"mqttTopics": {"publish": publish, "subscribe": subscribe}}
    own = fields.get("id", MINIMAL["id"])
    return MINIMAL | {"metadata": metadata, "Subscription": MINIMAL["Subscription"] | {"Topic": own}} | fields


@dataclass(frozen=True)
class Example:
    plugin: type[Plugin]
    json: dict[str, Any]
    options: dict[str, Any]
    differences: dict[str, str] = field(default_factory=dict[str, str])
    """Paths in which ours may differ, each with the reason."""


EXAMPLES = {
    "minimal on Windows": Example(
        Minimal, MINIMAL, {"platforms": ["Windows"], "executable": "bin/MyBridge/MyBridge.exe"}
    ),
    "minimal on Linux": Example(
        Minimal,
        MINIMAL | {"executablePath": "bin/MyBridge/MyBridge", "supportedPlatforms": ["Linux"]},
        {"platforms": ["Linux"], "executable": "bin/MyBridge/MyBridge"},
    ),
    "minimal on macOS": Example(
        Minimal,
        MINIMAL | {"executablePath": "bin/MyBridge/MyBridge", "supportedPlatforms": ["macOS"]},
        {"platforms": ["macOS"], "executable": "bin/MyBridge/MyBridge"},
    ),
    "annotated": Example(
        Annotated,
        vendor(["KeeperLogger", "MyBridge/Responses/+"], ["MyBridge/Commands/+"]),
        {"platforms": ["Windows"], "executable": "bin/MyBridge/MyBridge.exe"},
    ),
    "command and response, one file for all platforms": Example(
        Worker,
        vendor(
            ["KeeperLogger", "MyWorker/Responses/+", "MyWorker/Status"],
            ["MyWorker/Commands/+"],
            id="MyWorker",
            name="My Worker",
            description="Receives commands and publishes responses over MQTT.",
            executablePath="bin/MyWorker/MyWorker.exe",
            supportedPlatforms=["Windows", "Linux", "macOS"],
            startupPriority=50,
        ),
        {"platforms": ["Windows", "Linux", "macOS"], "executable": "bin/MyWorker/MyWorker.exe"},
    ),
    "command and response, as the page tells to edit it": Example(
        Worker,
        vendor(
            ["KeeperLogger", "MyWorker/Responses/+", "MyWorker/Status"],
            ["MyWorker/Commands/+"],
            id="MyWorker",
            name="My Worker",
            description="Receives commands and publishes responses over MQTT.",
            executablePath="bin/MyWorker/MyWorker",
            supportedPlatforms=["Linux"],
            startupPriority=50,
        ),
        {"platforms": ["Linux"]},
        {
            "executablePath": "our default is Plugins/bin/<Id>/<Id>, where the guide places programs; the example's "
            "bin/ below the agent root contradicts the guide"
        },
    ),
    "on demand": Example(
        OnDemand,
        vendor(
            ["KeeperLogger"],
            ["MyOnDemand"],
            id="MyOnDemand",
            name="My On Demand",
            description="Started by hand.",
            executablePath="bin/MyOnDemand/MyOnDemand.exe",
            startupPriority=80,
            autoStart=False,
            requiresMonitoring=False,
            autoRestart=False,
        ),
        {"platforms": ["Windows"], "executable": "bin/MyOnDemand/MyOnDemand.exe"},
    ),
}


def flat(content: dict[str, Any], parent: str = "") -> dict[str, Any]:
    """Return an object's fields by their ways from the root."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found |= flat(cast("dict[str, Any]", value), f"{parent}{name}.")
        else:
            found[parent + name] = value
    return found


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_declared_in_python_equals_the_vendors_json(name: str) -> None:
    example = EXAMPLES[name]
    ours = flat(manifest_of(example.plugin.declarations(), **example.options).content)
    theirs = flat(example.json)
    assert list(ours) == list(theirs), "the fields and their order"
    assert {path for path in ours if ours[path] != theirs[path]} == set(example.differences)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_the_same_text_but_for_the_layout(name: str) -> None:
    example = EXAMPLES[name]
    ours = to_json(manifest_of(example.plugin.declarations(), **example.options))
    theirs = json.dumps(example.json, indent=2).encode() + b"\n"
    assert (ours == theirs) is (not example.differences)
