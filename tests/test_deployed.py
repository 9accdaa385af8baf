"""The deployed manifest is compared with the code at start, where it can be found."""

import json
import logging
from pathlib import Path

import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.manifest import manifest_of, to_json
from kepm_plugin.runtime import warn_of_denials


class Deployed(Plugin):
    id = "Deployed"


@Deployed.command("scan")
class Scan(Handler[Deployed]):
    async def handle(self, message: Message[dict[str, object]]) -> None: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An agent root with the plugin's manifest as the code needs it."""
    (tmp_path / "Plugins/bin/Deployed").mkdir(parents=True)
    (tmp_path / "appsettings.json").write_text("{}")
    (tmp_path / "Plugins/Deployed.json").write_bytes(to_json(manifest_of(Deployed.declarations())))
    return tmp_path


def warnings(root: Path, caplog: pytest.LogCaptureFixture) -> list[tuple[str, list[str]]]:
    with caplog.at_level(logging.INFO, "kepm_plugin.runtime"):
        warn_of_denials(Deployed.declarations(), root / "Plugins/bin/Deployed/Deployed")
    return [(record.message, vars(record).get("topics", [])) for record in caplog.records]


def test_a_manifest_in_step_with_the_code_is_nothing_to_tell(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(root, caplog) == []


def test_each_topic_that_the_manifest_lacks_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = root / "Plugins/Deployed.json"
    manifest = json.loads(path.read_bytes())
    manifest["metadata"]["mqttTopics"] = {"publish": ["KeeperLogger", "Deployed/+"], "subscribe": ["Deployed/Link"]}
    path.write_text(json.dumps(manifest))
    assert warnings(root, caplog) == [
        ("manifest.lacks", ["Deployed/Responses/scan"]),
        ("manifest.lacks", ["Deployed/Commands/scan"]),
    ]


def test_a_manifest_that_is_no_json_is_told_and_does_not_stop_the_plugin(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "Plugins/Deployed.json").write_text("{")
    assert warnings(root, caplog) == [("manifest.unread", [])]


def test_without_an_agent_root_there_is_nothing_to_compare(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(tmp_path, caplog) == []
