"""Faults of the HTTPS API, as a plugin's process sees them."""

import asyncio
from pathlib import Path

import httpx
import pytest

from kepm_plugin.devagent import ApiHangs, ApiRefused, ApiSlow, ControlClient
from tests.devagent.conftest import install, manifest, staged, until

OWN = "/api/PluginSettings/P"


async def test_the_settings_api_refuses_for_a_while_and_the_rest_answers(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        number = await asyncio.to_thread(ControlClient.find(root).fault, ApiRefused(seconds=60))
        for _ in range(3):
            assert (await http.get(OWN)).status_code == 403
        assert (await http.get("/health")).status_code == 200
        stage.agent.faults.clear(number)
        assert (await http.get(OWN)).status_code == 200
        await stage.lines.wait_for("fault 1 is over: ApiRefused, acted 3 times")


async def test_only_the_plugin_that_is_meant_is_refused_as_often_as_said(root: Path) -> None:
    install(root, manifest("Q", autoStart=False))
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        await stage.agent.fault(ApiRefused(plugin="Q", status=500, count=1))
        assert (await http.get(OWN)).status_code == 200
        await stage.agent.fault(ApiRefused(plugin="P", status=503, count=1, path=""))
        assert [(await http.get("/health")).status_code for _ in range(2)] == [503, 200]


async def test_an_answer_comes_late_or_never(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        await stage.agent.fault(ApiSlow(delay=0.01))
        assert (await http.get(OWN)).status_code == 200
        assert stage.agent.faults.counts["ApiSlow"] == 1
        await stage.agent.fault(ApiHangs())
        with pytest.raises(httpx.ReadTimeout):
            await http.get(OWN, timeout=0.2)
        assert (await http.get(OWN)).status_code == 200


async def test_an_agent_ends_while_an_answer_hangs(root: Path) -> None:
    async with staged(root, "mosquitto") as stage, stage.http() as http:
        await stage.agent.fault(ApiHangs())
        hanging = asyncio.create_task(http.get(OWN))
        await until(lambda: stage.agent.faults.counts["ApiHangs"] == 1)
        hanging.cancel()
