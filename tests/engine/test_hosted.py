"""The testing kit as an author uses it: what it does, and what it says when something is missing."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from kepm_plugin import Change, Handler, Message, Plugin, Publisher, Settings, setting
from kepm_plugin.errors import NoAnswer, PluginDefinitionError
from kepm_plugin.store import FILE, open_letters
from kepm_plugin.testing import hosted
from tests.engine.world import JSON, World

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
log, library = structlog.get_logger("talker"), logging.getLogger("library")


@dataclass
class Scan:
    folder: str
    depth: int = 1


class P(Plugin):
    id = "P"
    findings = Publisher[Any]("Findings/{severity}")


@P.command("scan")
class ScanHandler(Handler[P]):
    concurrency = 2

    async def handle(self, message: Message[Scan]) -> JSON:
        await self.plugin.findings.publish(message.payload, severity="low")
        if message.payload.folder == "slow":
            await anyio.sleep(1)
        return {"folder": message.payload.folder, "depth": message.payload.depth, "qos": message.qos}


async def test_a_command_is_given_as_one_value_or_field_by_field() -> None:
    async with hosted(P) as host:
        for given in (
            await host.command("scan", Scan("/etc", 2)),
            await host.command("scan", {"folder": "/etc", "depth": 2}),
            await host.command("scan", folder="/etc", depth=2),
            await host.command("scan", {"folder": "/etc"}, depth=2),
        ):
            assert (given["ok"], given["result"]) == (True, {"folder": "/etc", "depth": 2, "qos": 1})
        with pytest.raises(TypeError, match="a command's payload is an object, not list"):
            await host.command("scan", [1])


@on_mock_clock
async def test_commands_at_the_same_time_get_each_its_own_answer() -> None:
    answers: dict[str, Any] = {}

    async def ask(folder: str) -> None:
        answers[folder] = (await host.command("scan", folder=folder))["result"]["folder"]

    async with hosted(P) as host, anyio.create_task_group() as tasks:
        for folder in ("slow", "quick"):
            tasks.start_soon(ask, folder)
    assert answers == {"slow": "slow", "quick": "quick"}


async def test_what_is_published_can_be_looked_at_and_waited_for() -> None:
    async with hosted(P) as host:
        assert host.published("Findings/+") == []
        await host.plugin.findings.publish(b"\xff", severity="high")
        await host.plugin.findings.publish({"a": 1}, severity="low")
        assert await host.until_published("Findings/+", 2) == [b"\xff", {"a": 1}]
        assert host.published("/P/Findings/high") == [b"\xff"]
        await host.publish("", b"to the primary topic")
        assert host.published("") == [b"to the primary topic"]


@on_mock_clock
async def test_what_does_not_come_is_an_error_that_says_what_came_instead() -> None:
    async with hosted(P) as host:
        await host.publish("Mine", "not the plugin's")
        with pytest.raises(NoAnswer) as caught:
            await host.until_published("Findings/high")
        assert str(caught.value) == (
            "only 0 of 1 message(s) on 'P/Findings/high' came within 5 s; published by the plugin so far: nothing"
        )
        host.broker.up = False
        with pytest.raises(NoAnswer, match="did not reconnect within 5 s"):
            await host.lose_link()


async def test_a_failing_assertion_comes_out_as_itself() -> None:
    with pytest.raises(AssertionError, match="mine"):
        async with hosted(P):
            raise AssertionError("mine")


async def test_wrong_declarations_come_out_as_themselves() -> None:
    class Abstract(Plugin, abstract=True): ...

    with pytest.raises(PluginDefinitionError, match="Abstract is abstract"):
        async with hosted(Abstract):
            pytest.fail("it must not run")


async def test_stop_tells_how_the_run_ended() -> None:
    async with hosted(P) as host:
        outcome = await host.stop()
        assert (outcome.error, outcome.cut_off) == (None, False)
        assert host.published("Status")[-1]["state"] == "stopped"


async def test_with_a_folder_the_journal_is_in_files(tmp_path: Path) -> None:
    async with hosted(P, data_dir=tmp_path) as host:
        assert (await host.command("scan", folder="/etc"))["ok"]
    assert (tmp_path / "plugin.db").exists()


async def test_a_command_at_qos_0_is_answered_too() -> None:
    world = World(P)
    async with world.running():
        await world.served()
        world.send("P/Commands/scan", {"folder": "/etc"}, qos=0)
        await world.until(lambda: world.on("P/Responses/scan"))
    assert world.on("P/Responses/scan")[0]["result"]["qos"] == 0


async def test_a_key_of_many_lines_that_an_exception_group_indents_is_neither_kept_nor_logged(tmp_path: Path) -> None:
    class Keys(Settings):
        key: str = setting(secret=True)

    class Keyed(Plugin):
        id = "Keyed"
        settings: Keys

    @Keyed.command("load")
    class Load(Handler[Keyed]):
        async def handle(self, message: Message[JSON]) -> None:
            async with anyio.create_task_group():
                raise ValueError(f"cannot load {self.plugin.settings.key}")

    key = "-----BEGIN KEY-----\nMIIBVAIBADANBgkq\nAgEAAkEAq7BFUpkG\n-----END KEY-----\n"
    async with hosted(Keyed, settings={"key": key}, data_dir=tmp_path, strict=False) as host:
        assert (await host.command("load"))["error"] == "internal error"
        await host.stop()
        logged = str(host.published("/KeeperLogger"))
    with open_letters(tmp_path / FILE, writable=False) as letters:
        assert letters is not None
        [entry] = letters.all()
        found = letters.read(entry.id)
    assert found is not None
    for told in (found.details, logged):
        assert "cannot load ***" in told
        assert "MIIB" not in told
        assert "AgEA" not in told


class Tokens(Settings):
    token: str = setting(secret=True)


class Talker(Plugin):
    id = "Talker"
    settings: Tokens

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        yield
        log.info("closing", part="lifespan")

    async def on_settings_changed(self, change: Change[Tokens]) -> None:
        log.info(f"from {change.old.token} to {change.new.token}")


@Talker.command("talk")
class Talk(Handler[Talker]):
    async def handle(self, message: Message[JSON]) -> None:
        log.info("talking", token_value=1, said=f"it is {self.plugin.settings.token}", many=[1, 2])
        for number in range(300):
            log.info("talking", number=number, said=self.plugin.settings.token)
        library.info("talked with %s", self.plugin.settings.token)


async def test_everything_that_was_logged_is_sent_in_order_before_the_end() -> None:
    async with hosted(Talker, settings={"token": "first-token"}) as host:
        await host.command("talk")
        await host.stop()
        records = [each for each in host.published("/KeeperLogger") if each["logger"] in ("talker", "library")]
    assert [each["message"] for each in records] == ["talking"] * 301 + ["talked with ***", "closing"]
    assert records[0] | {"many": [1, 2], "said": "it is ***", "token_value": "***"} == records[0]
    assert [(each["number"], each["said"]) for each in records[1:301]] == [(number, "***") for number in range(300)]
    assert records[-1]["part"] == "lifespan"


async def test_a_secret_that_has_changed_is_masked_in_what_waits_to_become_a_record() -> None:
    async with hosted(Talker, settings={"token": "first-token"}) as host:
        for token in ("second-token", "third-token"):
            before = host.plugin.settings.token
            log.info(f"it was {before}")
            await host.change_setting("token", token)
            log.info(f"it was {before} and is {token}")
        await host.stop()
        told = [each["message"] for each in host.published("/KeeperLogger") if each["logger"] == "talker"]
    assert told == [*(["it was ***", "from *** to ***", "it was *** and is ***"] * 2), "closing"]
