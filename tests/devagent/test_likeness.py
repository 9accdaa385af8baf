"""`likeness`: what the agent may be like where the pages leave it open."""

import json
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.devagent import DevOptions, Likeness, dev_agent
from kepm_plugin.devagent.storage import spelled
from kepm_plugin.errors import UsageError
from tests.devagent.conftest import Lines, install, manifest, staged

SETTINGS = "/api/PluginSettings"


@pytest.mark.parametrize(
    ("template", "client_id", "accepted"),
    [
        ("", "P", True),
        ("", "any_P_thing", True),
        ("", "P-1", False),
        ("{PluginId}", "P", True),
        ("{PluginId}", "P_1", False),
        ("{PluginId}_{Suffix}", "P_1f", True),
        ("{PluginId}_{Suffix}", "P", False),
        ("{PluginId}_{Suffix}", "P_", False),
        ("{PluginId}_{Suffix}", "P_1_2", False),
        ("{PluginId}_{Suffix}", "Q_1", False),
        ("a.{PluginId}", "a.P", True),
        ("a.{PluginId}", "abP", False),
    ],
)
def test_a_client_id_is_of_the_form_or_it_is_not(template: str, client_id: str, accepted: bool) -> None:
    assert Likeness(client_id=template).accepts(client_id, "P") is accepted


@pytest.mark.parametrize(
    ("like", "body", "value"),
    [
        ({}, {"value": 3}, 3),
        ({}, {"VALUE": False}, False),
        ({}, {"value": None}, None),
        ({}, {"value": []}, None),
        ({}, {"settingValue": "a"}, None),
        ({"put_name": "Value", "put_casing": "exact"}, {"value": "a"}, None),
        ({"put_name": "Value", "put_casing": "exact"}, {"value": "a", "Value": "b"}, "b"),
        ({"put_types": "string"}, {"value": 3}, None),
        ({"put_types": "string"}, {"value": True}, None),
        ({"put_types": "string"}, {"value": ""}, ""),
    ],
)
def test_a_body_has_a_value_that_fits_or_none(like: dict[str, Any], body: dict[str, object], value: object) -> None:
    found = Likeness(**like).value_in(body)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "ways"),
    [
        (True, ["True", "true", True]),
        (3, ["3", "3", 3]),
        (2.5, ["2.5", "2.5", 2.5]),
        ("True", ["True", "True", "True"]),
        (None, ["", "", None]),
        ([1], ["[1]", "[1]", [1]]),
    ],
)
def test_a_value_is_shown_in_one_of_the_ways(value: object, ways: list[object]) -> None:
    assert [spelled(value, "dotnet"), spelled(value, "json"), spelled(value, "native")] == ways


def test_a_record_lacks_something_or_is_taken() -> None:
    like = Likeness(log_level="Level", log_message="Text", log_levels=("Info", "Error"))
    assert Likeness().lacking({}) == ""
    assert like.lacking({"Level": "Info", "Text": ""}) == ""
    assert like.lacking({"level": "Info"}) == "it has no Level, Text"
    assert like.lacking({"Level": "info", "Text": ""}) == "its Level is 'info', none of Info, Error"


def test_texts_become_a_likeness_or_are_refused() -> None:
    made = Likeness.of(["put_tier=admin", "put_tier=plugin", "log_levels=a,, b", "put_name="], "{PluginId}_1")
    assert made == Likeness(log_levels=("a", "b"), put_name="", client_id="{PluginId}_1")
    for text, said in (
        ("put_tier", "write NAME=VALUE; put_tier is meant?"),
        ("zzz=1", "write NAME=VALUE; give one of put_name, put_casing, "),
        ("put_tier=root", "--like put_tier=root: give one of plugin, admin"),
    ):
        with pytest.raises(UsageError, match="--like") as caught:
            Likeness.of([text])
        assert said in str(caught.value)


async def test_types_outlive_the_agent(root: Path) -> None:
    async with staged(root, "mosquitto", settings={"n": 3}) as stage, stage.http() as http:
        await http.put(f"{SETTINGS}/P/on", json={"value": True})
        assert (await http.get(f"{SETTINGS}/P")).json() == {"n": "3", "on": "True"}
    assert json.loads((root / ".dev" / "storage.json").read_text("utf-8")) == {"P": {"on": True}}
    install(root, manifest("P", n=3))
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=Lines())) as agent:
        assert (agent.values("P"), agent.effective("P")) == ({"n": 3, "on": True}, {"n": "3", "on": "True"})


async def test_a_role_that_changes_counts_from_then_on(root: Path) -> None:
    async with staged(root, "mosquitto", settings={"on": True}) as stage, stage.http() as http:
        stage.agent.role.like = Likeness(spelling="native", single="text", put_tier="admin")
        assert (await http.get(f"{SETTINGS}/P")).json() == {"on": True}
        answer = await http.get(f"{SETTINGS}/P/on")
        assert (answer.text, answer.headers["content-type"]) == ("True", "text/plain; charset=utf-8")
        assert (await http.put(f"{SETTINGS}/P/on", json={"value": False})).status_code == 403
        await stage.lines.wait_for("setting on was not written: 403, only administrators")
        assert stage.agent.describe()["like"]["spelling"] == "native"
