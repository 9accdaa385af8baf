"""A plugin whose publications wait on disk: across runs, with its log records, and at its end."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copytree
from typing import ClassVar, Literal

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin, Publisher
from kepm_plugin.contract import LOGGER_TOPIC
from kepm_plugin.message import Publication
from kepm_plugin.store import Keep, Store, memory_store, open_store
from kepm_plugin.testing import hosted
from tests.engine.disk import full_disk
from tests.engine.world import JSON, World

log = logging.getLogger("author")

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


class Keeping(Plugin, abstract=True):
    outbox: ClassVar[Literal["memory", "disk"]] = "disk"
    heartbeat: ClassVar[float | None] = None
    finding = Publisher[int]("Findings")
    hint = Publisher[int]("Hints", qos=0)


class P(Keeping):
    id = "P"


class InMemory(Keeping):
    id = "P"
    outbox = "memory"


@P.command("count")
class Count(Handler[P]):
    async def handle(self, message: Message[JSON]) -> str:
        await self.plugin.finding.publish(0)
        return "counted"


def logged(world: World) -> list[str]:
    """What the author's code logged, as far as it reached the broker."""
    return [each["message"] for each in world.on(LOGGER_TOPIC) if each.get("logger") == "author"]


async def lost(world: World) -> None:
    """Cut the link for good."""
    world.broker.kill()
    with anyio.fail_after(5):
        while world.serving.status.up:
            await anyio.wait_all_tasks_blocked()


def kept(store: Store, topic: str = "P/Findings") -> list[bytes]:
    return [publication.payload for _, publication in store.kept() if publication.topic == topic]


async def test_what_was_published_during_an_outage_is_sent_by_the_next_run_before_anything_new(tmp_path: Path) -> None:
    async with hosted(P, data_dir=tmp_path) as host:
        host.broker.kill()
        for number in range(49):
            await host.plugin.finding.publish(number)
        host.plugin.finding.publish_soon(49)
        await anyio.wait_all_tasks_blocked()
        await host.stop()
        assert host.published("Findings") == []
    async with hosted(P, data_dir=tmp_path) as host:
        await host.plugin.finding.publish(50)
        assert await host.until_published("Findings", 51) == list(range(51))
    async with hosted(P, data_dir=tmp_path) as host:
        await host.plugin.finding.publish(51)
        assert await host.until_published("Findings") == [51]


async def test_what_was_published_survives_a_kill_and_what_was_acknowledged_is_not_sent_again(tmp_path: Path) -> None:
    async with hosted(P, data_dir=tmp_path / "killed") as host:
        for number in range(3):
            await host.plugin.finding.publish(number, wait="acknowledged")
        assert (await host.command("count"))["ok"]
        await anyio.wait_all_tasks_blocked()
        host.broker.kill()
        for number in range(3, 6):
            await host.plugin.finding.publish(number)
            host.plugin.hint.publish_soon(number)
        copytree(tmp_path / "killed", tmp_path / "left")  # what a kill would leave
    async with hosted(P, data_dir=tmp_path / "left") as host:
        assert await host.until_published("Findings", 3) == [3, 4, 5]
        assert host.published("Hints") == host.published("Responses/count") == []


async def test_in_memory_what_could_not_be_sent_ends_with_the_process_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with memory_store() as store:
        world = World(InMemory, store=store)
        async with world.running():
            await world.served()
            await lost(world)
            for number in range(3):
                await world.plugin.finding.publish(number)
            world.stop()
            await world.ended()
        assert store.kept() == []
    [told] = [vars(each)["count"] for each in caplog.records if each.message == "publications.lost"]
    assert told >= 3
    assert "publications.lost" in world.lines.getvalue()


async def test_the_goodbye_does_not_wait_behind_what_is_kept() -> None:
    class Loud(Keeping):
        id = "P"
        heartbeat = 3600.0

    with memory_store() as store:
        world = World(Loud, store=store)
        async with world.running():
            await world.served()
            await anyio.wait_all_tasks_blocked()
            for number in range(3000):
                world.plugin.finding.publish_soon(number)
            await world.until(lambda: world.on("P/Findings"))
            world.stop()
            await world.ended()
    topics = [each.topic for each in world.published]
    assert "stopped" in world.states()
    assert len(topics) - topics[::-1].index("P/Status") < topics.index("P/Findings") + 2900


# --- log records ------------------------------------------------------------------------------------------------------


async def test_records_of_an_outage_survive_it_in_order(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        world = World(P, store=store)
        async with world.running():
            await world.served()
            log.warning("before")
            await world.until(lambda: "before" in logged(world))
            await anyio.wait_all_tasks_blocked()  # until it is acknowledged, too
            await lost(world)
            for number in range(250):
                log.warning("meanwhile %d", number)
            await anyio.wait_all_tasks_blocked()
            assert len([each for each in kept(store, LOGGER_TOPIC) if b"meanwhile" in each]) == 250
            world.stop()
            await world.ended()
    with open_store(tmp_path) as store:
        world = World(P, store=store)
        async with world.running():
            await world.served()
            log.warning("after")
            await world.until(lambda: "after" in logged(world))
            await anyio.wait_all_tasks_blocked()
            assert kept(store, LOGGER_TOPIC) == []
    assert logged(world) == [*(f"meanwhile {number}" for number in range(250)), "after"]
    messages = [each["message"] for each in world.on(LOGGER_TOPIC)]
    start = messages.index("plugin.starting")
    assert start > messages.index("meanwhile 249"), "those of the earlier run come first"
    assert [each.get("state") for each in world.on(LOGGER_TOPIC)[:start]][-1] == "stopped", "to the last one"


async def test_records_for_which_there_was_no_time_at_the_end_are_left_to_the_next_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kepm_plugin.runtime._serve.FLUSH", 0.0)

    class Late(Keeping):
        id = "P"

        @asynccontextmanager
        async def lifespan(self) -> AsyncGenerator[None]:
            yield
            for number in range(250):
                log.warning("closing %d", number)

    with memory_store() as store:
        world = World(Late, store=store)
        async with world.running():
            await world.served()
            world.stop()
            await world.ended()
        left = [each for each in kept(store, LOGGER_TOPIC) if b"closing" in each]
    assert len(left) >= 150, "what had not left the pipe"
    assert b"closing 249" in left[-1]


async def test_while_there_is_a_link_records_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Keep] = []
    with memory_store() as store:
        real = store.keep

        def keep(batch: Sequence[tuple[Keep, Publication]], sent: Sequence[int] = ()) -> list[int]:
            written.extend(kind for kind, _ in batch)
            return real(batch, sent)

        monkeypatch.setattr(store, "keep", keep)
        world = World(P, store=store)
        async with world.running():
            await world.served()
            log.warning("first")
            await world.until(lambda: "first" in logged(world))
            await anyio.wait_all_tasks_blocked()
            written.clear()
            for number in range(250):
                log.warning("record %d", number)
            await world.until(lambda: "record 249" in logged(world))
            await world.plugin.finding.publish(1)
            assert written == [Keep.PUBLICATION]


@on_asyncio
async def test_a_full_disk_degrades_the_plugin_and_when_it_has_room_records_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepm_plugin.outbox._disk.RETRY", 0.01)

    class Told(Keeping):
        id = "P"
        heartbeat = 3600.0

    with open_store(tmp_path) as store:
        written, real = anyio.Event(), store.keep

        def keep(batch: Sequence[tuple[Keep, Publication]], sent: Sequence[int] = ()) -> list[int]:
            ids = real(batch, sent)
            if any(b"meanwhile" in publication.payload for _, publication in batch):
                written.set()
            return ids

        monkeypatch.setattr(store, "keep", keep)
        world = World(Told, store=store)
        async with world.running():
            await world.served()
            await world.plugin.finding.publish(0)
            with full_disk(tmp_path):
                with anyio.fail_after(5):
                    await world.plugin.finding.publish(1)
                await world.until(lambda: world.states()[-1] == "degraded")
                assert "cannot keep publications in" in world.on("P/Status")[-1]["reason"]
                assert world.on("P/Findings") == [0, 1], "the link has brought it"
                await anyio.wait_all_tasks_blocked()  # until no record is under way
                await lost(world)
                log.warning("meanwhile")
                await anyio.wait_all_tasks_blocked()
                assert not written.is_set()
            with anyio.fail_after(5):
                await written.wait()
            await world.reconnected(lambda: setattr(world.broker, "up", True))
            assert world.states()[-1] == "running"
