"""Checks of manifest files: each fault is named with file, field and remedy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.manifest import Findings, validate_files

GOOD: dict[str, Any] = {
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
    "startupPriority": 60,
    "autoStart": True,
    "executionContext": "Service",
    "requiresMonitoring": True,
    "autoRestart": True,
}

Check = Callable[..., Findings]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Validate the good example with some fields set, or left out with None; `__` stands for a dot."""

    def run(name: str = "MyBridge.json", /, **changes: Any) -> Findings:
        content: dict[str, Any] = json.loads(json.dumps(GOOD))
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
            if value is None:
                del place[last]
        (tmp_path / name).write_text(json.dumps(content), "utf-8")
        return validate_files([tmp_path / name])

    return run


def lines(findings: Findings) -> list[str]:
    return [f"{one.level}: {one.field}: {one.text}" for one in findings.all]


def test_the_vendors_example_is_clean(check: Check) -> None:
    assert check().all == ()
    assert check(own={"anything": 1}, **{"scan.root": "/"}).all == ()


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"id": None}, "id", "is missing; the vendor requires it"),
        ({"pluginType": None}, "pluginType", "is missing; the vendor requires it"),
        ({"supportedPlatforms": None}, "supportedPlatforms", "is missing; the vendor requires it"),
        ({"Subscription": None}, "Subscription", "is missing; the vendor requires it"),
        ({"Subscription__Topic": None}, "Subscription.Topic", "is missing; the vendor requires it"),
        ({"metadata": None}, "metadata", "is missing; the vendor requires it"),
        ({"metadata__mqttTopics": None}, "metadata.mqttTopics", "is missing; the vendor requires it"),
        ({"metadata__mqttTopics__publish": None}, "metadata.mqttTopics.publish", "is missing; the vendor requires it"),
        ({"executablePath": None}, "executablePath", "is missing; name the program"),
        ({"executablePath": " "}, "executablePath", "is empty; name the program"),
        ({"autoStart": "true"}, "autoStart", 'must be true or false, not "true"'),
        ({"Subscription": "MyBridge"}, "Subscription", 'must be an object, not "MyBridge"'),
        ({"name": 7}, "name", "must be a string, not 7"),
        ({"supportedPlatforms": "Windows"}, "supportedPlatforms", 'must be a list of strings, not "Windows"'),
        ({"supportedPlatforms": []}, "supportedPlatforms", "is empty; list Windows, Linux, macOS"),
        ({"Subscription__Qos": 3}, "Subscription.Qos", "is 3; MQTT knows 0, 1 and 2"),
        (
            {"Subscription__Topic": "a/#/b"},
            "Subscription.Topic",
            "topic 'a/#/b': '#' is allowed in the last level only",
        ),
        ({"metadata__mqttTopics__publish": []}, "metadata.mqttTopics.publish", "lacks 'KeeperLogger', so that log"),
        ({"metadata__mqttTopics__subscribe": ["a+"]}, "metadata.mqttTopics.subscribe", "a wildcard stands alone"),
        ({"metadata__mqttTopics__subscribe": [""]}, "metadata.mqttTopics.subscribe", "a filter cannot be empty"),
        ({"executionContext": "Root"}, "executionContext", "'Root' is unknown; use Service, User, Interactive"),
    ],
)
def test_what_is_wrong_is_an_error(check: Check, changes: dict[str, Any], field: str, text: str) -> None:
    found = check(**changes)
    assert [one.field for one in found.errors] == [field]
    assert text in found.errors[0].text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my_bridge", "holds '_'; use letters, digits"),
        ("My Bridge", "holds ' '; use letters, digits"),
        ("", "is empty; use letters, digits"),
        ("keeperlogger", "'keeperlogger' is used by the agent itself; choose another"),
        ("revert-all", "'revert-all' is used by the agent itself; choose another"),
    ],
)
def test_an_id_that_cannot_be_one_is_an_error(check: Check, name: str, text: str) -> None:
    found = check(f"{name}.json", id=name, Subscription__Topic=name or "x")
    assert [one.field for one in found.errors] == ["id"]
    assert text in found.errors[0].text


def test_the_file_is_called_as_the_id(check: Check) -> None:
    assert lines(check("Bridge.json")) == ["error: id: is 'MyBridge', so the file must be called MyBridge.json"]


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"pluginType": "Script"}, "pluginType", "'Script' is in no example"),
        ({"name": None}, "name", "is missing, and every example"),
        ({"metadata__mqttRole": None}, "metadata.mqttRole", "is missing, and every example"),
        (
            {"metadata__mqttRole": ["publisher"]},
            "metadata.mqttRole",
            'is ["publisher"], and ["subscriber", "publisher"]',
        ),
        ({"Subscription__Qos": 1}, "Subscription.Qos", "is 1, and 2 in every example"),
        ({"Subscription__CleanSession": False}, "Subscription.CleanSession", "is false, and true in every example"),
        ({"Subscription__Topic": "Bridge"}, "Subscription.Topic", "is not the id"),
        ({"metadata__mqttTopics__subscribe": ["X/#"]}, "metadata.mqttTopics.subscribe", "'X/#' holds '#'"),
        ({"requiresMonitoring": False}, "autoRestart", "has no effect without requiresMonitoring"),
        ({"supportedPlatforms": ["Windows", "Linux"]}, "executablePath", "which is right on Windows only"),
        ({"executablePath": "bin\\MyBridge"}, "executablePath", "does not end with '.exe'"),
        ({"autoStarts": True, "autoStart": None}, "autoStarts", "if 'autoStart' is meant, correct it"),
        ({"Subscription__QoSs": 1}, "Subscription.QoSs", "is no documented field; if 'Qos'"),
        (
            {"subscription": GOOD["Subscription"], "Subscription": None},
            "subscription",
            "the vendor writes 'Subscription'",
        ),
    ],
)
def test_what_no_example_does_is_a_warning(check: Check, changes: dict[str, Any], field: str, text: str) -> None:
    found = check(**{**({"Subscription__Qos": None} if "QoSs" in str(changes) else {}), **changes})
    assert found.errors == ()
    assert any(one.field == field and text in one.text for one in found.warnings), lines(found)


def test_a_component_inside_the_agent_has_no_program(check: Check) -> None:
    assert check(pluginType="Service", executablePath=None).all == ()


def test_every_fault_of_a_file_is_named(check: Check) -> None:
    found = check(
        id=7, supportedPlatforms=["windows", "BSD"], Subscription__Qos="2", metadata__mqttTopics__publish=["a+"]
    )
    assert [one.field for one in found.errors] == [
        "id",
        "Subscription.Qos",
        "supportedPlatforms",
        "supportedPlatforms",
        "metadata.mqttTopics.publish",
        "metadata.mqttTopics.publish",
    ]


def test_files_are_compared_with_each_other(tmp_path: Path) -> None:
    first, second, broken = tmp_path / "MyBridge.json", tmp_path / "mybridge.json", tmp_path / "None.json"
    first.write_text(json.dumps(GOOD), "utf-8")
    second.write_text(json.dumps(GOOD | {"id": "mybridge"}), "utf-8")
    found = validate_files([second, broken, first])
    assert [(one.file.name, one.field) for one in found.errors] == [
        ("None.json", ""),
        ("MyBridge.json", "id"),
        ("MyBridge.json", "Subscription.Topic"),
    ]
    assert f"'MyBridge' is taken by {second}" in found.errors[1].text
    assert str(found.errors[0]) == f"error: {broken}: cannot be read: No such file or directory; name a file that can"


def test_a_file_without_an_id_clashes_with_nobody(tmp_path: Path) -> None:
    for name in ("A.json", "B.json"):
        (tmp_path / name).write_text('{"id": 3, "Subscription": {}}', "utf-8")
    found = validate_files([tmp_path / "A.json", tmp_path / "B.json"])
    assert not [one for one in found.errors if "is taken" in one.text]
