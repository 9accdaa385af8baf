"""Plugins' files as the agent reads them."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.devagent.manifests import (
    Manifest,
    Problem,
    find_executable,
    platform_name,
    read_file,
    read_folder,
    split_arguments,
)
from tests.devagent.conftest import install, manifest


def read(root: Path, content: dict[str, Any]) -> Manifest:
    found = read_file(install(root, content))
    assert isinstance(found, Manifest), found
    return found


def problem(root: Path, content: dict[str, Any]) -> str:
    found = read_file(install(root, content))
    assert isinstance(found, Problem)
    return str(found)


def without(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


def test_the_vendors_minimal_example_is_read(root: Path) -> None:
    found = read(
        root,
        {
            "id": "MyBridge",
            "name": "My Bridge",
            "description": "Long-running bridge component.",
            "version": "1.0.0",
            "pluginType": "Executable",
            "executablePath": "bin/MyBridge/MyBridge.exe",
            "supportedPlatforms": ["Windows"],
            "Subscription": {"Topic": "MyBridge", "Qos": 2, "CleanSession": True},
            "metadata": {
                "mqttRole": ["subscriber", "publisher"],
                "mqttTopics": {"publish": ["KeeperLogger"], "subscribe": ["MyBridge", "MyBridge/Commands/+"]},
            },
            "startupPriority": 50,
            "autoStart": False,
            "executionContext": "Service",
            "requiresMonitoring": False,
            "autoRestart": False,
        },
    )
    assert (found.id, found.name, found.version, found.startup_priority) == ("MyBridge", "My Bridge", "1.0.0", 50)
    assert (found.auto_start, found.requires_monitoring, found.auto_restart) == (False, False, False)
    assert found.rights.may_publish("KeeperLogger")
    assert found.rights.may_subscribe("MyBridge/Commands/scan")
    assert found.runs_here("Windows")
    assert not found.runs_here("Linux")


def test_names_are_read_in_any_casing_and_unknown_ones_are_kept(root: Path) -> None:
    content = manifest("P", extra=1)
    shouted = {key.upper() if key != "id" else key: value for key, value in content.items()}
    shouted["METADATA"] = {"MQTTTOPICS": {"PUBLISH": ["x"], "SUBSCRIBE": []}}
    found = read(root, shouted)
    assert (found.rights.publish, found.content["EXTRA"]) == (("x",), 1)


def test_optional_fields_have_defaults(root: Path) -> None:
    content = manifest("P")
    for name in ("startupPriority", "autoStart", "executionContext", "requiresMonitoring", "autoRestart", "arguments"):
        del content[name]
    found = read(root, content | {"Subscription": {"Topic": "P"}})
    assert (found.startup_priority, found.auto_start, found.arguments, found.name) == (60, True, "", "P")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"pluginType": "Service"}, "pluginType: 'Service' is not for a process of its own"),
        ({"pluginType": ""}, "pluginType: must be a non-empty string"),
        ({"executablePath": 3}, "executablePath: must be a non-empty string"),
        ({"name": 3}, "name: must be a string"),
        ({"supportedPlatforms": []}, "supportedPlatforms: is empty"),
        ({"supportedPlatforms": ["linux"]}, 'supportedPlatforms: "linux" is no platform; use Windows, Linux, macOS'),
        ({"supportedPlatforms": "Linux"}, "supportedPlatforms: must be a list of strings"),
        ({"Subscription": "P"}, "Subscription: must be a JSON object"),
        ({"Subscription": {}}, "Subscription.Topic: is missing"),
        ({"Subscription": {"Topic": "a/#/b"}}, "Subscription.Topic: 'a/#/b' is no topic filter"),
        ({"Subscription": {"Topic": "P", "Qos": 3}}, "Subscription.Qos: must be a whole number from 0 to 2"),
        ({"Subscription": {"Topic": "P", "Qos": True}}, "Subscription.Qos: must be a whole number"),
        ({"Subscription": {"Topic": "P", "CleanSession": "yes"}}, "Subscription.CleanSession: must be true or false"),
        ({"metadata": {}}, "metadata.mqttTopics: is missing"),
        ({"metadata": {"mqttTopics": {"publish": []}}}, "metadata.mqttTopics.subscribe: is missing"),
        ({"metadata": {"mqttTopics": {"publish": ["a+"]}}}, 'metadata.mqttTopics.publish: "a+" is no topic filter'),
        ({"metadata": {"mqttTopics": {"publish": [3]}}}, "metadata.mqttTopics.publish: 3 is no topic filter"),
        ({"startupPriority": "60"}, "startupPriority: must be a whole number"),
        ({"autoStart": "true"}, 'autoStart: must be true or false, not "true"'),
        ({"executionContext": "Root"}, "executionContext: 'Root' is unknown; use Service, User, Interactive"),
        ({"arguments": ["--x"]}, "arguments: must be a string"),
        ({"arguments": "'open"}, "arguments: cannot be split"),
    ],
)
def test_a_problem_names_file_field_and_remedy(root: Path, fields: dict[str, Any], expected: str) -> None:
    assert f"P.json: {expected}" in problem(root, manifest("P", **fields))


@pytest.mark.parametrize(
    "name", ["id", "pluginType", "executablePath", "supportedPlatforms", "Subscription", "metadata"]
)
def test_a_required_field_that_is_missing_is_named(root: Path, name: str) -> None:
    path = install(root, manifest("P"))
    path.write_text(json.dumps(without(manifest("P"), name)), encoding="utf-8")
    assert str(read_file(path)).startswith(f"P.json: {name}: is missing")


@pytest.mark.parametrize("plugin_id", ["a_b", "a+b", "a#b", "a b", "KeeperLogger", "keeperapi", "revert-all"])
def test_an_id_that_cannot_be_used_is_refused(root: Path, plugin_id: str) -> None:
    assert ": id: " in problem(root, manifest(plugin_id))


def test_the_file_must_be_named_after_the_id(root: Path) -> None:
    path = root / "Plugins" / "Other.json"
    path.write_text(json.dumps(manifest("P")), encoding="utf-8")
    assert str(read_file(path)) == "Other.json: id: is 'P', so the file must be called P.json"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"id": "P", "ID": "P"}', b"\xff\xfe", "[" * 100_000])
def test_what_is_no_plugin_file_is_skipped_and_the_others_are_read(root: Path, text: str | bytes) -> None:
    install(root, manifest("Good"))
    (root / "Plugins" / "Bad.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    manifests, problems = read_folder(root / "Plugins")
    assert list(manifests) == ["Good"]
    assert [found.file.name for found in problems] == ["Bad.json"]


def test_a_file_that_cannot_be_read_is_a_problem(root: Path) -> None:
    assert "file: cannot be read" in str(read_file(root / "Plugins" / "None.json"))


def test_a_primary_topic_and_an_id_belong_to_one_plugin(root: Path) -> None:
    install(root, manifest("A"))
    install(root, manifest("B", Subscription={"Topic": "A"}))
    install(root, manifest("a"))
    manifests, problems = read_folder(root / "Plugins")
    assert list(manifests) == ["A"]
    assert [str(found) for found in problems] == [
        "B.json: Subscription.Topic: 'A' is taken by A; choose another",
        "a.json: id: differs from A in case only; choose another",
    ]


def test_the_executable_is_looked_for_below_the_root_and_then_below_plugins(root: Path) -> None:
    below_plugins = root / "Plugins" / "bin" / "P" / "P"
    below_root = root / "bin" / "P" / "P"

    def find(path: str) -> Path | str:
        return find_executable(read(root, manifest("P", executablePath=path)), root, root / "Plugins")

    wrong = find("bin/P/P")
    assert isinstance(wrong, str)
    assert str(below_root) in wrong
    assert str(below_plugins) in wrong
    for path in (below_plugins, below_root):
        path.parent.mkdir(parents=True)
        path.touch()
        assert find("bin/P/P") == path
    assert find("Plugins/bin/P/P") == below_plugins
    assert find("{pluginroot}/bin/P/P") == below_plugins
    assert find("{approot}/bin/P/P") == below_root
    assert find(sys.executable) == Path(sys.executable)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("", []),
        ("--a=1 b", ["--a=1", "b"]),
        ("'one word' \"two words\"", ["one word", "two words"]),
        ("$HOME * `id` # not a comment ; |", ["$HOME", "*", "`id`", "#", "not", "a", "comment", ";", "|"]),
        ("--keeper-api-base={KeeperApiBaseUrl}", ["--keeper-api-base={KeeperApiBaseUrl}"]),
    ],
)
def test_arguments_are_split_without_a_shell(arguments: str, parts: list[str]) -> None:
    assert split_arguments(arguments) == parts


def test_a_backslash_stands_for_itself_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert split_arguments(r"C:\Temp\x 'C:\a b'") == [r"C:\Temp\x", r"C:\a b"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)), st.data())
def test_no_value_in_any_field_makes_reading_fail(value: object, data: st.DataObject) -> None:
    content = manifest("P")
    name = data.draw(st.sampled_from(sorted(content)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "P.json"
        path.write_text(json.dumps(content | {name: value}), encoding="utf-8")
        assert isinstance(read_file(path), Manifest | Problem)


@pytest.mark.parametrize(("system", "name"), [("linux", "Linux"), ("darwin", "macOS"), ("win32", "Windows")])
def test_operating_systems_have_the_vendors_names(system: str, name: str) -> None:
    assert platform_name(system) == name
