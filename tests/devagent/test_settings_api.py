"""The HTTPS API as a plugin's process sees it."""

import json
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.devagent import DevOptions, dev_agent
from kepm_plugin.devagent.storage import as_string, file_settings
from tests.devagent.conftest import Lines, install, manifest, python, staged

SETTINGS = "/api/PluginSettings"
OWN: dict[str, Any] = {"scan.root": "/etc", "deep": {"on": True, "n": 3}, "list": [1, "a"], "none": None}


def rewrite(root: Path, **fields: Any) -> None:
    """Change a plugin's file while the agent runs."""
    path = root / "Plugins" / "P.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), encoding="utf-8")


async def test_settings_are_read_as_a_flat_object_of_strings(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        answer = await http.get(f"{SETTINGS}/P")
        assert answer.json() == {
            "scan.root": "/etc",
            "deep.on": "True",
            "deep.n": "3",
            "list": '[1,"a"]',
            "none": "",
        }
        assert (await http.get(f"{SETTINGS}/P/scan.root")).json() == {"value": "/etc"}


async def test_the_agents_own_settings_say_where_the_broker_is(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        values = (await http.get(f"{SETTINGS}/KeeperPrivilegeManager")).json()
        assert (values["broker.host"], values["broker.port"]) == ("127.0.0.1", str(stage.agent.broker[1]))


async def test_a_written_setting_is_in_force_over_the_file(root: Path) -> None:
    values = (("/var", "/var"), (3, "3"), (2.5, "2.5"), (True, "True"), (False, "False"), ("", ""))
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        for value, stored in values:
            assert (await http.put(f"{SETTINGS}/P/scan.root", json={"Value": value})).status_code == 200
            assert (await http.get(f"{SETTINGS}/P/scan.root")).json() == {"value": stored}
            assert (await http.put(f"{SETTINGS}/P/brand.new", json={"value": value})).status_code == 200
            assert stage.agent.effective("P")["brand.new"] == stored


async def test_a_revert_imports_the_plugins_file_and_no_other(root: Path) -> None:
    install(root, manifest("Q", autoStart=False, color="red"))
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        await http.put(f"{SETTINGS}/P/scan.root", json={"value": "/var"})
        await http.put(f"{SETTINGS}/Q/color", json={"value": "blue"})
        rewrite(root, **{"scan.root": "/opt"})
        assert (await http.get(f"{SETTINGS}/P")).json()["scan.root"] == "/var"
        status = (await http.get(f"{SETTINGS}/P/status")).json()
        assert (status["hasChanges"], status["changedSettings"], status["fileChanged"]) == (True, ["scan.root"], True)
        assert (await http.post(f"{SETTINGS}/P/revert")).status_code == 200
        assert (await http.get(f"{SETTINGS}/P")).json()["scan.root"] == "/opt"
        status = (await http.get(f"{SETTINGS}/P/status")).json()
        assert (status["hasChanges"], status["changedSettings"], status["fileChanged"]) == (False, [], False)
        assert (await http.get(f"{SETTINGS}/Q/color")).json() == {"value": "blue"}


async def test_revert_all_imports_all_files(root: Path) -> None:
    install(root, manifest("Q", autoStart=False, color="red"))
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        for plugin, key in (("P", "scan.root"), ("Q", "color"), ("KeeperPrivilegeManager", "broker.host")):
            await http.put(f"{SETTINGS}/{plugin}/{key}", json={"value": "changed"})
        assert (await http.post(f"{SETTINGS}/revert-all")).status_code == 200
        assert stage.agent.effective("P")["scan.root"] == "/etc"
        assert stage.agent.effective("Q")["color"] == "red"
        assert stage.agent.effective("KeeperPrivilegeManager")["broker.host"] == "127.0.0.1"


async def test_a_file_that_is_wrong_now_is_not_imported(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        await http.put(f"{SETTINGS}/P/scan.root", json={"value": "/var"})
        (root / "Plugins" / "P.json").write_text("{", encoding="utf-8")
        answer = await http.post(f"{SETTINGS}/P/revert")
        assert answer.status_code == 500
        assert "P.json: file: is no JSON" in answer.json()["error"]
        assert stage.agent.effective("P")["scan.root"] == "/var"


async def test_written_settings_outlive_the_agent_in_a_private_file(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage:
        stage.agent.put("P", "scan.root", "/var")
    assert (root / ".dev" / "storage.json").stat().st_mode & 0o777 == 0o600
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=Lines())) as agent:
        assert agent.effective("P")["scan.root"] == "/var"


async def test_a_damaged_storage_is_set_aside(root: Path) -> None:
    (root / ".dev").mkdir()
    (root / ".dev" / "storage.json").write_text("[1", encoding="utf-8")
    lines = Lines()
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=lines)):
        await lines.wait_for("it is set aside as storage.damaged")
    assert (root / ".dev" / "storage.damaged").read_text("utf-8") == "[1"


async def test_unknown_names_are_not_found(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        for method, path in (
            ("GET", "p"),
            ("GET", "Nobody"),
            ("GET", "P/nothing"),
            ("PUT", "Nobody/x"),
            ("POST", "Nobody/revert"),
            ("GET", "Nobody/status"),
            ("GET", "a/b/c"),
        ):
            answer = await http.request(method, f"{SETTINGS}/{path}", json={"value": "x"} if method == "PUT" else None)
            assert answer.status_code == 404, path
        assert (await http.delete(f"{SETTINGS}/P/scan.root")).status_code == 405


async def test_a_body_that_is_no_setting_value_is_refused(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.http() as http:
        for body in (b"", b"{", b'"bare"', b"[]", b"{}", b'{"value": null}', b'{"value": {}}'):
            answer = await http.put(f"{SETTINGS}/P/scan.root", content=body)
            assert answer.status_code == 400, body
            assert "the body must be" in answer.json()["error"]
        assert stage.agent.effective("P")["scan.root"] == "/etc"


async def test_a_body_that_is_too_large_is_refused(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        answer = await http.put(f"{SETTINGS}/P/x", json={"value": "x" * 300_000})
        assert answer.status_code == 413


async def test_a_process_that_the_agent_did_not_launch_gets_403(root: Path) -> None:
    async with staged(root, "mosquitto", settings=OWN) as stage, stage.stranger() as http:
        for method, path in (
            ("GET", "P"),
            ("GET", "P/scan.root"),
            ("PUT", "P/scan.root"),
            ("POST", "P/revert"),
            ("POST", "revert-all"),
            ("GET", "P/status"),
            ("GET", "Nobody"),
        ):
            answer = await http.request(method, f"{SETTINGS}/{path}", json={"value": "x"} if method == "PUT" else None)
            assert answer.status_code == 403, path
        assert (await http.get("/api/plugins")).status_code == 403
        line = await stage.lines.wait_for(f"API: GET {SETTINGS}/P refused with 403")
        assert "which the agent did not launch" in line
        assert stage.agent.effective("P")["scan.root"] == "/etc"


async def test_anybody_may_ask_for_health(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.stranger() as http:
        health = (await http.get("/health")).json()
        assert (set(health), health["status"]) == ({"status", "timestamp", "version"}, "healthy")
        assert (await http.get("/")).json()["status"] == "running"
        assert (await http.get("/api/system/status")).json()["pluginCount"] == 1


async def test_a_plugin_sees_the_list_of_plugins(root: Path) -> None:
    install(root, manifest("Q", autoStart=False))
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        answer = (await http.get("/api/plugins")).json()
        rows = {row["id"]: row for row in answer["plugins"]}
        assert (rows["P"]["processId"], rows["P"]["status"]) == (stage.agent.pid("P"), "Healthy")
        assert (rows["Q"]["processId"], rows["Q"]["status"], rows["Q"]["lastStartTime"]) == (None, "Stopped", None)


async def test_a_process_is_refused_until_its_registration(root: Path) -> None:
    async with staged(root, "mosquitto", registration_delay=1.0) as stage, stage.http() as http:
        assert (await http.get(f"{SETTINGS}/P")).status_code == 403
        await stage.lines.wait_for("not registered for")
        while (await http.get(f"{SETTINGS}/P")).status_code == 403:
            continue


@pytest.mark.parametrize("trusted", [False, True])
async def test_children_of_a_plugin_are_trusted_only_where_that_is_asked_for(root: Path, trusted: bool) -> None:
    child = (
        "import sys, ssl, urllib.request, urllib.error\n"
        "c = ssl._create_unverified_context()\n"
        "try: print('child got', urllib.request.urlopen(sys.argv[1] + '/api/PluginSettings/C', context=c).status)\n"
        "except urllib.error.HTTPError as e: print('child got', e.code)\n"
    )
    parent = "import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', *sys.argv[1:]])\ntime.sleep(600)"
    install(root, manifest("C", arguments=python(parent, child, "{KeeperApiBaseUrl}")))
    lines = Lines()
    options = DevOptions(root=root, broker="mosquitto", echo=lines, trust_children=trusted)
    async with dev_agent(options):
        line = await lines.wait_for("child got")
        assert line.endswith("200" if trusted else "403")


def test_settings_of_a_file_are_what_is_no_manifest_field() -> None:
    content: dict[str, Any] = manifest("P", Level="high", nested={"a": {"b": 1}}) | {
        "Version": "1.0.0",
        "arguments": "",
    }
    content["metadata"]["owner"] = "me"
    assert file_settings(content) == {"Level": "high", "nested.a.b": 1, "owner": "me"}


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (True, "True"), (False, "False"), (None, ""), (1, "1"), (1.5, "1.5"), (["ä"], '["ä"]')],
)
def test_values_become_strings_as_dotnet_spells_them(value: object, text: str) -> None:
    assert as_string(value) == text
