"""Faults of the HTTPS API, as a plugin's process sees them."""

import asyncio
from pathlib import Path

import httpx
import pytest

from kepm_plugin.devagent import ApiCut, ApiHangs, ApiLate, ApiRefused, ApiSlow, ControlClient, Fault
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


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (ApiRefused(method="PUT", status=503), "before"),
        (ApiRefused(method="PUT", status=503, applied=True), "after"),
        (ApiCut(method="PUT"), "before"),
        (ApiCut(method="PUT", applied=True), "after"),
        (ApiHangs(method="PUT"), "before"),
        (ApiHangs(method="PUT", applied=True), "after"),
    ],
    ids=str,
)
async def test_a_write_fails_before_or_after_it_was_carried_out(root: Path, fault: Fault, outcome: str) -> None:
    async with staged(root, "mosquitto", settings={"depth": "before"}) as stage, stage.http() as http:
        await stage.agent.fault(fault)
        assert (await http.get(OWN)).json()["depth"] == "before", "reading is not concerned"
        if isinstance(fault, ApiRefused):
            assert (await http.put(f"{OWN}/depth", json={"value": "after"})).status_code == 503
        else:
            lost = httpx.ReadTimeout if isinstance(fault, ApiHangs) else httpx.TransportError
            with pytest.raises(lost):
                await http.put(f"{OWN}/depth", json={"value": "after"}, timeout=0.5)
        assert (await http.get(OWN)).json()["depth"] == outcome
        assert (await http.put(f"{OWN}/depth", json={"value": "again"})).json() == {"value": "again"}


async def test_a_write_is_carried_out_after_its_client_has_given_up(root: Path) -> None:
    async with staged(root, "mosquitto", settings={"depth": "before"}) as stage, stage.http() as http:
        await stage.agent.fault(ApiLate(method="PUT", path=f"{OWN}/depth", delay=0.5))
        assert (await http.put(f"{OWN}/other", json={"value": "x"})).status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            await http.put(f"{OWN}/depth", json={"value": "late"}, timeout=0.2)
        assert stage.agent.effective("P")["depth"] == "before"
        await until(lambda: stage.agent.effective("P")["depth"] == "late")
