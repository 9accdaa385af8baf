"""Sending commands and changing settings from another process."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin.devagent import ControlClient, DevOptions, dev_agent
from kepm_plugin.devagent.live import listed, live_file, live_folder
from kepm_plugin.errors import AgentError, AgentUnreachable, NoAnswer, UnknownPlugin, UsageError
from tests.devagent.conftest import Lines, Peer, Stage, install, manifest, python, staged


async def answer(peer: Peer, *answers: dict[str, Any]) -> dict[str, Any]:
    """Serve one command with the answers given, and return it."""
    command = await peer.message()
    content: dict[str, Any] = json.loads(command.payload)
    topic = command.topic.replace("/Commands/", "/Responses/")
    await peer.publish(topic, b"no JSON")
    await peer.publish(topic, json.dumps({"correlationId": "another", "ok": True}).encode())
    for each in answers:
        await peer.publish(topic, json.dumps({"correlationId": content["correlationId"]} | each).encode())
    return content | {"topic": command.topic}


async def serving(stage: Stage) -> Peer:
    """Return a connected peer that is subscribed to commands."""
    peer = await stage.peer()
    await peer.subscribe("P/Commands/+")
    return peer


async def test_a_command_is_sent_and_its_final_response_comes_back(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        peer = await serving(stage)
        client = ControlClient.find(root)
        sending = asyncio.create_task(asyncio.to_thread(client.send, "P", "scan", {"path": "/etc"}))
        command = await answer(peer, {"progress": 50}, {"ok": True, "result": [1]})
        assert (command["topic"], command["path"]) == ("P/Commands/scan", "/etc")
        assert await sending == {"correlationId": command["correlationId"], "ok": True, "result": [1]}


async def test_a_correlation_id_of_ones_own_is_kept(root: Path) -> None:
    async with staged(root, "mosquitto") as stage:
        peer = await serving(stage)
        sending = asyncio.create_task(stage.agent.send("P", "scan", {"correlationId": "mine"}))
        assert (await answer(peer, {"ok": False, "error": "no"}))["correlationId"] == "mine"
        assert (await sending)["error"] == "no"


async def test_a_command_waits_for_the_plugin_to_subscribe(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        sending = asyncio.create_task(stage.agent.send("P", "scan"))
        peer = await serving(stage)
        await answer(peer, {"ok": True})
        assert (await sending)["ok"] is True


async def test_a_command_is_answered_after_the_engine_was_killed(root: Path, broker: str) -> None:
    async with staged(root, broker) as stage:
        await serving(stage)
        client = ControlClient.find(root)
        await asyncio.to_thread(client.kill_engine, 0.2)
        sending = asyncio.create_task(stage.agent.send("P", "scan"))
        await stage.agent.wait_engine()
        peer = await serving(stage)
        await answer(peer, {"ok": True})
        assert (await sending)["ok"] is True


async def test_what_cannot_be_sent_is_explained(root: Path) -> None:
    install(root, manifest("Idle", autoStart=False))
    async with staged(root, "mosquitto") as stage:
        agent = stage.agent
        with pytest.raises(UnknownPlugin, match=r"no plugin 'Nobody' in .*; there are: Idle, P"):
            await agent.send("Nobody", "scan")
        with pytest.raises(AgentError, match=r"Idle is not running \(Stopped\)"):
            await agent.send("Idle", "scan")
        with pytest.raises(UnknownPlugin, match=r"no plugin 'p' in .*; P is meant\?"):
            await agent.send("p", "scan")
        with pytest.raises(NoAnswer, match=r"P is not connected, and was not within 0.1 s; what it has written"):
            await agent.send("P", "scan", timeout=0.1)
        mute = await stage.peer()
        with pytest.raises(NoAnswer, match=r"did not subscribe to P/Commands/scan within 0.1 s; .* nothing"):
            await agent.send("P", "scan", timeout=0.1)
        mute.leave()
        await serving(stage)
        await agent.wait_serving("P")
        with pytest.raises(NoAnswer, match=r"P did not answer P/Commands/scan within 0.1 s"):
            await agent.send("P", "scan", timeout=0.1)
        for command in ("", "a/+", "#"):
            with pytest.raises(UsageError, match="is no topic name"):
                await agent.send("P", command)


async def test_a_command_that_the_plugin_does_not_have_is_refused_at_once(root: Path) -> None:
    async with staged(root, "mosquitto", subscribe=["P/Commands/jobs/run", "P"]) as stage:
        peer = await stage.peer()
        await peer.subscribe("P", "P/Commands/jobs/run")
        await stage.agent.wait_serving("P")
        for command, said in (
            ("scan", r"no command 'scan' of P; it has: jobs/run$"),
            ("jobs/rum", r"no command 'jobs/rum' of P; it has: jobs/run; jobs/run is meant\?$"),
            ("Commands/jobs/run", r"leave out 'Commands/', give 'jobs/run'$"),
            ("P/Commands/jobs/run", r"leave out 'P/Commands/', give 'jobs/run'$"),
        ):
            with anyio.fail_after(5), pytest.raises(UsageError, match=said):
                await stage.agent.send("P", command, timeout=600)


async def test_why_a_plugin_is_not_there_is_said(root: Path) -> None:
    install(root, manifest("Gone", arguments=python("import sys; sys.exit(66)"), autoRestart=False))
    async with staged(root, "mosquitto") as stage:
        await stage.lines.wait_for("it is not started again")
        with pytest.raises(
            AgentError, match=r"Gone is not running \(Failed; .* code 66, a setting is missing or wrong\)"
        ):
            await stage.agent.send("Gone", "scan")
        await stage.agent.restart("P")
        with pytest.raises(NoAnswer, match=r"P is not connected, .*; its process last ended with signal 15"):
            await stage.agent.send("P", "scan", timeout=0.1)


async def test_settings_are_changed_from_outside(root: Path) -> None:
    async with staged(root, "mosquitto", settings={"color": "red"}) as stage:
        client = await asyncio.to_thread(ControlClient.find)  # the only one of this user

        def change() -> None:
            client.set_setting("P", "color", "blue")
            assert client.get_settings("P") == {"color": "blue"}
            assert client.settings_status("P")["changedSettings"] == ["color"]
            client.revert_settings("P")
            assert client.get_settings("P") == {"color": "red"}
            client.set_setting("P", "color", True)
            client.revert_settings()
            with pytest.raises(UnknownPlugin, match="no plugin 'Nobody'"):
                client.get_settings("Nobody")

        await asyncio.to_thread(change)
        assert stage.agent.effective("P") == {"color": "red"}


async def test_plugins_are_started_and_stopped_from_outside(root: Path) -> None:
    install(root, manifest("Idle", autoStart=False))
    async with staged(root, "mosquitto") as stage:
        client = ControlClient.find(root)

        def control() -> None:
            client.start("Idle")
            first = client.plugins()["Idle"]
            assert first["status"] == "Healthy"
            client.restart("Idle")
            assert client.plugins()["Idle"]["pid"] not in (None, first["pid"])
            client.stop("Idle")
            assert client.plugins()["Idle"]["status"] == "Stopped"

        await asyncio.to_thread(control)
        described = await asyncio.to_thread(client.describe)
        assert described["api_base"] == stage.agent.api_base
        assert described["engine_pid"] == stage.agent.engine_pid


async def test_the_listener_answers_nobody_without_the_token(root: Path) -> None:
    async with staged(root, "mosquitto"):
        client = ControlClient.find(root)
        path = root / ".dev" / "control.json"
        assert path.stat().st_mode & 0o777 == 0o600
        stranger = ControlClient(root=root, port=client.port, token="guessed")
        with pytest.raises(AgentError, match="wrong token"):
            await asyncio.to_thread(stranger.plugins)

        def ask(request: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", client.port), timeout=5) as sock:
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
                return sock.makefile("rb").read()

        for nonsense in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\xff\n", b"[" * 100_000 + b"\n"):
            assert await asyncio.to_thread(ask, nonsense) == b""
        for action, answered in (("explode", b"unknown action"), ("start", b"wrong arguments")):
            request: dict[str, Any] = {"token": client.token, "action": action, "arguments": {}}
            assert answered in await asyncio.to_thread(ask, json.dumps(request).encode() + b"\n")


async def test_an_agent_that_is_not_there_is_reported(root: Path) -> None:
    with pytest.raises(AgentUnreachable, match="no local agent is running; start one"):
        ControlClient.find()
    with pytest.raises(AgentUnreachable, match="no local agent is running on"):
        ControlClient.find(root)
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=Lines())):
        client = await asyncio.to_thread(ControlClient.find)
        assert client == ControlClient.find(root)
        assert live_file(root).stat().st_mode & 0o777 == 0o600
    with pytest.raises(AgentUnreachable, match="no local agent answers"):
        client.plugins()
    assert listed() == {}
    assert not (root / ".dev" / "control.json").exists()


async def test_without_a_root_the_only_agent_that_has_the_plugin_is_meant(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other one"
    for root, ids in ((one, ("A", "Both")), (other, ("B", "Both"))):
        (root / "Plugins").mkdir(parents=True)
        for plugin_id in ids:
            install(root, manifest(plugin_id, autoStart=False))

    def find(plugin: str | None) -> Path:
        return ControlClient.find(None, plugin).root

    async with dev_agent(DevOptions(root=one, broker="mosquitto", echo=Lines())):
        assert await asyncio.to_thread(find, "Nobody") == one  # which then says what it has
        killed = live_file(tmp_path / "killed")
        killed.write_text(f"{tmp_path / 'killed'}\n", "utf-8")
        assert await asyncio.to_thread(find, "A") == one
        async with dev_agent(DevOptions(root=other, broker="mosquitto", echo=Lines())):
            assert not killed.exists()
            assert await asyncio.to_thread(find, "A") == one
            assert await asyncio.to_thread(find, "B") == other
            with pytest.raises(UsageError) as several:
                await asyncio.to_thread(find, "Both")
            assert "2 local agents have Both; name one: " in str(several.value)
            for shown in (f"--root {one} (A, Both)", f"--root '{other}' (B, Both)"):
                assert shown in str(several.value)
            with pytest.raises(
                UsageError, match="none of the local agents that run has 'Nobody'; name the one that is to: --root"
            ):
                await asyncio.to_thread(find, "Nobody")
            with pytest.raises(UsageError, match="2 local agents run; name one: --root"):
                await asyncio.to_thread(find, "KeeperPrivilegeManager")
        assert await asyncio.to_thread(find, "Both") == one


def test_an_agent_that_does_not_answer_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.devagent.control_client.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = ControlClient(root=root, port=mute.getsockname()[1], token="")
        with pytest.raises(AgentUnreachable, match="did not answer in time; is it stopped"):
            client.plugins()


async def test_a_second_agent_on_the_same_root_is_refused(root: Path) -> None:
    options = DevOptions(root=root, broker="mosquitto", echo=Lines())
    async with dev_agent(options):
        second = dev_agent(options)
        with pytest.raises(AgentError, match=r"is in use by a local agent with process id \d+; end that one"):
            await second.__aenter__()
    async with dev_agent(options):
        pass


async def test_the_list_of_running_agents_may_be_unwritable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = root / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(blocked))
    lines = Lines()
    async with dev_agent(DevOptions(root=root, broker="mosquitto", echo=lines)):
        await lines.wait_for("needs --root")
        assert await asyncio.to_thread(ControlClient.find(root).plugins) == {}


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_RUNTIME_DIR": "/run/user/1"}, "/run/user/1/kepm-plugin/dev-agents"),
        ("linux", {"XDG_STATE_HOME": "/state"}, "/state/kepm-plugin/dev-agents"),
        ("linux", {}, "/home/me/.local/state/kepm-plugin/dev-agents"),
        ("darwin", {}, "/home/me/Library/Application Support/kepm-plugin/dev-agents"),
        ("linux", {"KEPM_DEV_AGENTS": "/mine", "XDG_RUNTIME_DIR": "/run/user/1"}, "/mine"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/kepm-plugin/dev-agents"),
    ],
)
def test_the_list_lies_where_the_system_keeps_state(
    platform: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("HOME", "/home/me")
    assert live_folder(environment) == Path(expected)
