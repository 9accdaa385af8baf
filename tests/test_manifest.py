"""The manifest as it is written, read and compared."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin import Handler, Message, Plugin, Publisher, Request, Settings, setting
from kepm_plugin.errors import ManifestError, PluginDefinitionError, UsageError
from kepm_plugin.manifest import current_platform, drift, manifest_of, read_manifest, schema, supported, to_json


class WorkerSettings(Settings):
    root: str = setting(default="/etc", key="scan.root")
    depth: int = 3
    follow: bool = False
    skip: list[str] = setting(default=["proc", "sys"])
    limit: int | None = None
    token: str = setting(secret=True)
    hidden: str = setting(default="s3cret", secret=True)


class Worker(Plugin):
    """Scans folders für files.

    This paragraph is for readers of the code.
    """

    id = "MyWorker"
    version = "1.2.0"
    settings: WorkerSettings
    findings = Publisher[str]("Findings/{severity}")
    evaluate = Request[dict[str, str], str](
        "/KeeperPolicy/Commands/evaluate", response="/KeeperPolicy/Responses/evaluate"
    )
    allow_publish = ("/Shared/Topic",)
    allow_subscribe = ("",)


@Worker.command("scan")
class Scan(Handler[Worker]):
    async def handle(self, message: Message[bytes]) -> str:
        return ""


@Worker.topic("Events/{host}")
class Event(Handler[Worker]):
    async def handle(self, message: Message[bytes]) -> None: ...


@Worker.topic("Events/here")
class LocalEvent(Handler[Worker]):
    async def handle(self, message: Message[bytes]) -> None: ...


class Bare(Plugin):
    id = "Bare"
    platforms = ("Windows",)
    heartbeat = None
    echo = False


def worker(**options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"platforms": ["Linux"], **options}
    return manifest_of(Worker.declarations(), **given).content


def test_the_lists_are_exactly_what_the_code_uses() -> None:
    assert worker()["metadata"]["mqttTopics"] == {
        "publish": [
            "KeeperLogger",
            "KeeperPolicy/Commands/evaluate",
            "MyWorker/Findings/+",
            "MyWorker/Link",
            "MyWorker/Responses/scan",
            "MyWorker/Status",
            "MyWorker/Status/settings",
            "Shared/Topic",
        ],
        "subscribe": [
            "KeeperPolicy/Responses/evaluate",
            "MyWorker",
            "MyWorker/Commands/scan",
            "MyWorker/Events/+",
            "MyWorker/Link",
        ],
    }


def test_defaults_of_settings_stand_sorted_at_the_end_and_secrets_never() -> None:
    content = worker()
    assert list(content)[list(content).index("autoRestart") + 1 :] == ["depth", "follow", "scan.root", "skip"]
    assert (content["depth"], content["follow"], content["scan.root"]) == (3, False, "/etc")
    assert content["skip"] == '["proc","sys"]'
    assert b"s3cret" not in to_json(manifest_of(Worker.declarations(), platforms=["Linux"]))


class Bounds(Settings):
    low: int = 5
    high: int = 3

    def validate(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


class Bounded(Plugin):
    id = "Bounded"
    settings: Bounds


class BoundsAndKey(Bounds):
    token: str = setting(secret=True)


class BoundedAndKey(Plugin):
    id = "BoundedAndKey"
    settings: BoundsAndKey


def test_defaults_that_break_a_rule_together_are_in_no_file() -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        manifest_of(Bounded.declarations(), platforms=["Linux"])
    assert str(caught.value).startswith(
        "Bounded.settings: the defaults break a rule (Bounds: low must not be above high); correct them"
    )
    written = manifest_of(BoundedAndKey.declarations(), platforms=["Linux"])
    assert written.settings == {"low": 5, "high": 3}, "an operator has to set something anyway"


def test_the_file_is_utf8_with_two_spaces_and_a_newline_and_always_the_same() -> None:
    first, second = (to_json(manifest_of(Worker.declarations(), platforms=["Linux"])) for _ in range(2))
    assert first == second
    assert first.startswith(b'{\n  "id": "MyWorker",\n  "name": "MyWorker",\n')
    assert first.endswith(b"}\n")
    assert "Scans folders für files." in first.decode()
    assert b"readers" not in first


def test_what_is_empty_is_left_out() -> None:
    content = manifest_of(Bare.declarations(), platforms=["Windows"], arguments="").content
    assert "description" not in content
    assert "arguments" not in content
    assert content["executablePath"] == "Plugins/bin/Bare/Bare.exe"
    assert content["metadata"]["mqttTopics"] == {"publish": ["KeeperLogger"], "subscribe": []}


def test_executable_and_arguments_are_as_given() -> None:
    content = worker(executable="/opt/worker", arguments="--keeper-api-base {KeeperApiBaseUrl}")
    assert content["executablePath"] == "/opt/worker"
    assert content["arguments"] == "--keeper-api-base {KeeperApiBaseUrl}"
    assert list(content)[5:8] == ["executablePath", "arguments", "supportedPlatforms"]


@pytest.mark.parametrize(
    ("declared", "wanted", "expected"),
    [
        (("Windows", "Linux", "macOS"), None, (current_platform(),)),
        (("Windows", "Linux", "macOS"), ["macos", "LINUX", "Linux"], ("Linux", "macOS")),
        (("macOS", "Linux"), ["macOS"], ("macOS",)),
    ],
)
def test_platforms_are_in_the_vendors_spelling_and_order(
    declared: tuple[str, ...], wanted: list[str] | None, expected: tuple[str, ...]
) -> None:
    assert supported("MyWorker", declared, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["Solaris"], "Bare is not for platform 'Solaris'; choose of Windows"),
        (["Linux"], "Bare is not for platform 'Linux'; choose of Windows, or add it to Plugin.platforms"),
    ],
)
def test_a_platform_that_the_plugin_lacks_is_refused(wanted: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        manifest_of(Bare.declarations(), platforms=wanted)


def test_a_plugin_for_elsewhere_needs_a_platform_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.manifest._generate.current_platform", lambda: "Linux")
    with pytest.raises(
        UsageError, match="not for Linux, where this runs; name one of its platforms, Windows, with --pl"
    ):
        manifest_of(Bare.declarations())


def test_one_file_for_windows_and_others_needs_the_program_named() -> None:
    with pytest.raises(
        UsageError, match=r"'\.exe' on Windows only; write one manifest for each platform, or give --exec"
    ):
        worker(platforms=["Windows", "Linux"])
    assert worker(platforms=["Linux", "macOS"])["executablePath"] == "Plugins/bin/MyWorker/MyWorker"
    assert worker(platforms=["Windows", "Linux"], executable="x.exe")["supportedPlatforms"] == ["Windows", "Linux"]


@pytest.mark.parametrize(("system", "name"), [("win32", "Windows"), ("darwin", "macOS"), ("linux", "Linux")])
def test_systems_have_the_vendors_names(system: str, name: str) -> None:
    assert current_platform(system) == name


# --- reading ----------------------------------------------------------------------------------------------------------


def test_names_are_read_in_any_casing_and_unknown_ones_kept() -> None:
    source = b"""{
      "my.key": 1, "ID": "X", "SUBSCRIPTION": {"topic": "X", "extra": [1]},
      "Metadata": {"MQTTTOPICS": {"Publish": ["KeeperLogger"], "other": null}, "vendor": {"ID": 1}}
    }"""
    manifest = read_manifest(source)
    assert json.loads(to_json(manifest)) == {
        "id": "X",
        "Subscription": {"Topic": "X", "extra": [1]},
        "metadata": {"mqttTopics": {"publish": ["KeeperLogger"], "other": None}, "vendor": {"ID": 1}},
        "my.key": 1,
    }
    assert (manifest.id, manifest.publish, manifest.subscribe) == ("X", ("KeeperLogger",), ())
    assert manifest.settings == {"my.key": 1}
    assert manifest.get("Subscription.Topic.deeper") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_editors_put_before_the_text_is_no_matter(tmp_path: Path, encoding: str) -> None:
    ours = manifest_of(Worker.declarations(), platforms=["Linux"])
    path = tmp_path / "MyWorker.json"
    path.write_bytes(to_json(ours).decode().encode(encoding))
    assert to_json(read_manifest(path)) == to_json(ours)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "X.json: is no JSON: Expecting property name"),
        ("[]", "X.json: is not a JSON object"),
        ('{"a": NaN}', "X.json: is no JSON: NaN"),
        ('{"a": ' + "[" * 20_000, "X.json: is nested too deeply"),
        ('{"id": "X", "ID": "Y"}', "X.json: id: is there twice"),
        ('{"Subscription": {"Qos": 1, "qos": 2}}', r"X.json: Subscription\.Qos: is there twice"),
        ('{"id": 3}', "X.json: id: must be a string, not 3"),
        ('{"autoStart": "true"}', 'X.json: autoStart: must be true or false, not "true"'),
        ('{"startupPriority": true}', "X.json: startupPriority: must be a whole number, not true"),
        ('{"metadata": []}', "X.json: metadata: must be an object"),
        ('{"supportedPlatforms": ["Linux", 1]}', "X.json: supportedPlatforms: must be a list of strings"),
        ('{"description": ["' + "x" * 200 + '"]}', "X.json: description: must be a string, not .*…$"),
    ],
)
def test_a_file_that_cannot_be_read_names_file_field_and_fault(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "X.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ManifestError, match=said):
        read_manifest(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"X\.json: cannot be read: No such file"):
        read_manifest(tmp_path / "X.json")


def test_what_is_no_text_cannot_be_written() -> None:
    manifest = read_manifest(b'{"id": "X", "name": "\\ud800"}')
    with pytest.raises(ManifestError, match="manifest of X cannot be written as JSON"):
        to_json(manifest)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text().map(lambda text: f"own {text}"), JSON, max_size=5))
def test_reading_and_writing_keeps_whatever_else_is_in_the_file(others: dict[str, Any]) -> None:
    content = worker() | others
    again = read_manifest(json.dumps(content).encode())
    assert json.loads(to_json(again)) == content
    assert to_json(read_manifest(to_json(again))) == to_json(again)


# --- drift ------------------------------------------------------------------------------------------------------------


def changed(**changes: Any) -> list[str]:
    """Return the drift of a file in which fields (with `__` for dots) are set, or left out with None."""
    expected = manifest_of(Worker.declarations(), platforms=["Linux", "macOS"])
    content = json.loads(to_json(expected))
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[name] = value
        if value is None:
            del place[name]
    return drift(expected, read_manifest(json.dumps(content).encode()))


def test_a_file_in_step_has_no_drift() -> None:
    assert changed() == []


def test_order_casing_and_keys_of_the_operator_are_no_drift() -> None:
    expected = manifest_of(Worker.declarations(), platforms=["Linux", "macOS"])
    content: dict[str, Any] = json.loads(to_json(expected))
    for topics in content["metadata"]["mqttTopics"].values():
        topics.reverse()
    content["supportedPlatforms"].reverse()
    content["METADATA"] = content.pop("metadata") | {"theirs": 1}
    content["kepm.log.level"] = "Debug"
    assert drift(expected, read_manifest(json.dumps(content).encode())) == []


def test_drift_reads_as_permissions_and_fields_gained_and_lost() -> None:
    assert changed(
        metadata__mqttTopics__publish=["KeeperLogger", "Other/Topic"],
        metadata__mqttTopics__subscribe=[*worker()["metadata"]["mqttTopics"]["subscribe"][:-1], "MyWorker/#"],
        autoStart=False,
        description=None,
        arguments="--verbose",
        Subscription__Qos=2,
    ) == [
        "publish: lost Other/Topic",
        "publish: gained KeeperPolicy/Commands/evaluate",
        "publish: gained MyWorker/Findings/+",
        "publish: gained MyWorker/Link",
        "publish: gained MyWorker/Responses/scan",
        "publish: gained MyWorker/Status",
        "publish: gained MyWorker/Status/settings",
        "publish: gained Shared/Topic",
        "subscribe: lost MyWorker/#",
        "subscribe: gained MyWorker/Link",
        'field description: expected "Scans folders für files.", found nothing',
        'field arguments: expected nothing, found "--verbose"',
        "field Subscription.Qos: expected 1, found 2",
        "field autoStart: expected true, found false",
    ]


def test_a_missing_object_is_drift_of_all_that_it_held() -> None:
    lines = changed(metadata=None)
    assert "publish: gained KeeperLogger" in lines
    assert 'field metadata.mqttRole: expected ["subscriber", "publisher"], found nothing' in lines


def test_a_default_that_changed_is_drift() -> None:
    assert changed(**{"scan.root": "/opt", "follow": 0, "depth": None}) == [
        "setting depth: expected 3, found nothing",
        "setting follow: expected false, found 0",
        'setting scan.root: expected "/etc", found "/opt"',
    ]


# --- schema -----------------------------------------------------------------------------------------------------------


def test_the_schema_is_one_and_takes_what_is_generated() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(worker(), schema())
    jsonschema.validate(worker(platforms=["Windows"], arguments="-v") | {"own": {"a": 1}}, schema())
    in_process = worker() | {"pluginType": "Service"}
    del in_process["executablePath"]
    jsonschema.validate(in_process, schema())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "my_worker"),
        ("id", None),
        ("executablePath", None),
        ("supportedPlatforms", ["Solaris"]),
        ("supportedPlatforms", []),
        ("Subscription", {"Topic": "X", "Qos": 3}),
        ("Subscription", {"Qos": 2}),
        ("metadata", {"mqttTopics": {"publish": ["KeeperLogger"]}}),
        ("metadata", {"mqttTopics": {"publish": [""], "subscribe": []}}),
        ("executionContext", "Root"),
        ("autoStart", "yes"),
        ("startupPriority", 1.5),
    ],
)
def test_the_schema_refuses_what_is_wrong(field: str, value: Any) -> None:
    content = worker() | {field: value}
    if value is None:
        del content[field]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())
