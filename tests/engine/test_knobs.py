"""The framework's knobs on a running plugin: each takes effect at once, and its default comes back with a revert."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin, Settings
from kepm_plugin.contract import BROKER_HOST_KEY, SYSTEM_PLUGIN
from kepm_plugin.errors import BadPayload, LinkLost, Overloaded, SettingsError, UsageError
from kepm_plugin.knobs import DAY, MIB
from kepm_plugin.message import Received
from kepm_plugin.store import Keep, memory_store, open_store
from kepm_plugin.testing import Hosted, MemoryAgent, hosted
from tests.engine.world import World, fresh

on_mock_clock = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
pytestmark = on_mock_clock

log = logging.getLogger("worker")


def publishing(**attributes: Any) -> type[Plugin]:
    return fresh(allow_publish=("Out",), **attributes)


class Own(Settings):
    depth: int = 3


class Deep(Plugin):
    id = "Deep"
    settings: Own


class Held:
    """A handler that waits until it may go on."""

    def __init__(self, kind: type[Plugin]) -> None:
        self.kind, self.gate, self.handled = kind, anyio.Event(), list[Any]()
        held = self

        @kind.topic("Events")
        class Event(Handler[Plugin]):
            async def handle(self, message: Message[bytes]) -> None:
                await held.gate.wait()
                held.handled.append(message.payload)


async def report(host: Hosted[Any]) -> dict[str, Any]:
    """Return the last report, once all is quiet."""
    await anyio.sleep(31)
    told: dict[str, Any] = host.published("Status")[-1]
    return told


async def counters(host: Hosted[Any]) -> dict[str, int]:
    """Return its counters."""
    told: dict[str, int] = (await report(host))["counters"]
    return told


def messages(host: Hosted[Any]) -> list[tuple[str, str]]:
    """Return level and message of what the worker logged."""
    records = host.published("/KeeperLogger")
    return [(each["level"], each["message"]) for each in records if each["logger"] == "worker"]


# --- the log ----------------------------------------------------------------------------------------------------------


async def test_the_log_level_is_changed_and_goes_back() -> None:
    async with hosted(fresh()) as host:
        for number, word in enumerate(("", "Debug", "error", "")):
            if word:
                await host.change_setting("kepm.log.level", word)
            else:
                await host.plugin.revert_settings()
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                log.log(level, "%d", number)
        await anyio.sleep(1)
        told = messages(host)
    assert [level for level, text in told if text == "0"] == ["Information", "Warning", "Error"]
    assert [level for level, text in told if text == "1"] == ["Debug", "Information", "Warning", "Error"]
    assert [level for level, text in told if text == "2"] == ["Error"]
    assert [level for level, text in told if text == "3"] == ["Information", "Warning", "Error"]


async def test_the_agents_own_level_is_the_default_from_the_start_and_after_a_reconnect() -> None:
    agent = MemoryAgent("P", {})
    agent.system["system.logging.level"] = "warning"
    world = World(fresh(), agent=agent)
    async with world.running():
        await world.served()
        assert world.serving.knobs.chosen.log_level is None
        log.info("left out")
        agent.system["system.logging.level"] = "Debug"
        await world.reconnected(lambda: world.broker.cut("P"))
        await anyio.sleep(1)
        log.debug("told")
        agent.stored["kepm.log.level"] = "Information"
        await world.serving.settings.refresh()
        await world.reconnected(lambda: world.broker.cut("P"))
        await anyio.sleep(1)
        log.debug("left out again")
        log.info("told, too")
        await anyio.sleep(1)
    told = [each["message"] for each in world.on("KeeperLogger") if each["logger"] == "worker"]
    assert told == ["told", "told, too"]


async def test_a_level_of_the_agents_that_is_none_counts_as_information() -> None:
    async with hosted(fresh()) as host:
        host.agent.system["system.logging.level"] = "Verbose"
        for _ in range(2):
            await host.lose_link()
            await anyio.sleep(1)
        log.info("told")
        await anyio.sleep(1)
        records = host.published("/KeeperLogger")
    assert [each["value"] for each in records if each["message"] == "log.level_unknown"] == ["Verbose"]
    assert ("Information", "told") in messages(host)


async def test_while_the_agent_does_not_answer_after_a_reconnect_the_level_stays() -> None:
    async with hosted(fresh()) as host:
        host.agent.system["system.logging.level"] = "Debug"
        await host.lose_link()
        await anyio.sleep(1)
        host.agent.refusing = True
        await host.lose_link()
        await anyio.sleep(1)
        host.agent.refusing = False
        log.debug("told")
        await anyio.sleep(1)
    assert ("Debug", "told") in messages(host)


@pytest.mark.parametrize(
    ("key", "least", "count", "size"), [("kepm.log.max_records", 100, 300, 1), ("kepm.log.max_mb", 1, 300, 20_000)]
)
async def test_the_log_that_waits_in_memory_is_bounded(key: str, least: int, count: int, size: int) -> None:
    async with hosted(fresh()) as host:
        dropped: list[int] = []
        for value in (least, None):
            if value is None:
                await host.plugin.revert_settings()
            else:
                await host.change_setting(key, value)
            await anyio.sleep(1)
            host.broker.kill()
            for _ in range(count):
                log.warning("x" * size)
            host.broker.up = True
            dropped.append((await counters(host))["logsDropped"] - sum(dropped))
    assert dropped[0] >= count // 3
    assert dropped[1] == 0, "the default is back"


@pytest.mark.parametrize(
    ("key", "least", "size"), [("kepm.log.disk.max_records", 100, 1), ("kepm.log.disk.max_mb", 1, 20_000)]
)
async def test_the_log_of_an_outage_on_disk_is_bounded_and_more_is_taken_when_it_may(
    key: str, least: int, size: int
) -> None:
    with memory_store() as store:
        world = World(fresh(outbox="disk"), store=store)
        async with world.running():
            await world.served()
            world.agent.stored[key] = str(least)
            await world.serving.settings.refresh()
            await anyio.sleep(1)
            world.broker.kill()
            for _ in range(500):
                log.warning("x" * size)
            await anyio.sleep(1)
            assert 100 <= store.kept_of(Keep.RECORD)[0] <= 250, "one batch of 100 may go beyond"
            world.agent.stored.clear()
            await world.serving.settings.refresh()
            await anyio.sleep(1)
            assert store.kept_of(Keep.RECORD)[0] >= 500, "nothing else has roused it"


# --- times ------------------------------------------------------------------------------------------------------------


async def test_the_heartbeat_is_changed_in_the_middle_of_one_and_goes_back() -> None:
    async with hosted(fresh()) as host:

        async def beats(seconds: float) -> int:
            before = len(host.published("Status"))
            await anyio.sleep(seconds)
            return len(host.published("Status")) - before

        await anyio.sleep(1)
        assert await beats(65) == 2
        await host.change_setting("kepm.heartbeat", 5)
        assert await beats(61) == 12
        await host.plugin.revert_settings()
        assert await beats(65) == 2
    async with hosted(fresh(), settings={"kepm.heartbeat": "5"}) as host:
        await anyio.sleep(1)
        assert await beats(61) == 12


async def test_a_plugin_without_heartbeat_stays_without() -> None:
    async with hosted(fresh(heartbeat=None)) as host:
        with pytest.raises(SettingsError, match="does not declare P/Status"):
            await host.change_setting("kepm.heartbeat", 5)
        await anyio.sleep(31)
        assert host.published("Status") == []


async def test_the_settings_are_looked_at_as_often_as_is_said() -> None:
    looks = [0]
    async with hosted(fresh()) as host:
        settings = host.agent.settings

        async def counted(plugin: str) -> dict[str, str]:
            looks[0] += plugin != SYSTEM_PLUGIN
            return await settings(plugin)

        host.agent.settings = counted  # type: ignore[method-assign]
        host.agent.stored["kepm.settings.interval"] = "50"
        await anyio.sleep(6)
        looks[0] = 0
        await anyio.sleep(500)
        assert 8 <= looks[0] <= 12
        host.agent.stored.clear()
        await anyio.sleep(56)
        looks[0] = 0
        await anyio.sleep(500)
        assert 80 <= looks[0] <= 120


@pytest.mark.parametrize(("text", "seconds"), [("2", 2), ("", 10)])
async def test_handlers_have_as_long_at_a_stop_as_is_said(text: str, seconds: float) -> None:
    ending: list[float] = []
    held = Held(fresh())

    def told(seconds: float, _code: int) -> None:
        ending.append(seconds)

    world = World(held.kind, ending=told)
    async with world.running():
        await world.served()
        world.agent.stored["kepm.drain"] = text
        await world.serving.settings.refresh()
        world.send("P/Events")
        await anyio.sleep(1)
        began = anyio.current_time()
        world.stop()
        assert (await world.ended()).cut_off
        assert seconds <= anyio.current_time() - began < seconds + 3
    assert ending[0] == seconds


@pytest.mark.parametrize(("text", "least"), [("30", 30), ("", 600)])
async def test_a_lost_link_is_restored_for_as_long_as_is_said(text: str, least: float) -> None:
    world = World(fresh())
    async with world.running():
        await world.served()
        world.agent.stored["kepm.link.budget"] = text
        await world.serving.settings.refresh()
        began = anyio.current_time()
        world.broker.kill()
        outcome = await world.ended(within=700)
        assert isinstance(outcome.error, LinkLost)
        assert f"within {least:g} s" in str(outcome.error)
        assert least <= anyio.current_time() - began < least + 30


async def test_the_stall_guard_is_told() -> None:
    told: list[float] = []
    world = World(fresh(), stall=told.append)
    async with world.running():
        await world.served()
        for text in ("2.5", "2.5", ""):
            world.agent.stored["kepm.stall.seconds"] = text
            await world.serving.settings.refresh()
    assert told == [2.5, 0.1]


# --- what waits to be sent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outbox", "key"), [("memory", "kepm.outbox.max_messages"), ("disk", "kepm.outbox.disk.max_messages")]
)
async def test_publications_that_wait_are_bounded_and_more_are_taken_when_they_may(outbox: str, key: str) -> None:
    async with hosted(publishing(outbox=outbox)) as host:
        await anyio.sleep(1)
        host.broker.kill()
        for _ in range(150):
            await host.plugin.publish("Out", b"x")
        await host.change_setting(key, 100)
        with pytest.raises(Overloaded):
            await host.plugin.publish("Out", b"y", timeout=5)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.plugin.publish, "Out", b"z")
            await anyio.sleep(1)
            await host.plugin.revert_settings()
        assert anyio.current_time() - began < 2, "who waited for room has it"
        host.broker.up = True
        await anyio.sleep(2)
        assert host.published("Out") == [*[b"x"] * 150, b"z"], "what was there before the bound is sent"


@pytest.mark.parametrize(("outbox", "key"), [("memory", "kepm.outbox.max_mb"), ("disk", "kepm.outbox.disk.max_mb")])
async def test_their_bytes_are_bounded_and_what_was_there_before_is_sent(outbox: str, key: str) -> None:
    large, small = bytes(3 * MIB), b"small"
    async with hosted(publishing(outbox=outbox)) as host:
        await anyio.sleep(1)
        host.broker.kill()
        await host.plugin.publish("Out", large)
        await host.change_setting(key, 1)
        with pytest.raises(Overloaded):
            await host.plugin.publish("Out", small, timeout=5)
        if outbox == "memory":
            with pytest.raises(BadPayload, match="more than 1048576 are never sent"):
                await host.plugin.publish("Out", bytes(2 * MIB))
        host.broker.up = True
        await anyio.sleep(2)
        await host.plugin.publish("Out", small)
        await anyio.sleep(1)
        assert host.published("Out") == [large, small]


async def test_a_payload_on_disk_is_not_given_up_for_a_bound_that_came_later(tmp_path: Path) -> None:
    async with hosted(publishing(outbox="disk"), data_dir=tmp_path) as host:
        host.broker.kill()
        await host.plugin.publish("Out", bytes(3 * MIB))
    async with hosted(publishing(outbox="disk"), data_dir=tmp_path, settings={"kepm.outbox.max_mb": 1}) as host:
        assert await host.until_published("Out") == [bytes(3 * MIB)]


@pytest.mark.parametrize(("text", "sent"), [("20", 0), ("", 1)])
async def test_publications_in_memory_wait_for_as_long_as_is_said(text: str, sent: int) -> None:
    async with hosted(publishing()) as host:
        await host.change_setting("kepm.outbox.max_seconds", text)
        await anyio.sleep(1)
        host.broker.kill()
        await host.plugin.publish("Out", b"x")
        await anyio.sleep(60)
        host.broker.up = True
        assert (await counters(host))["notSent"] == 1 - sent
        assert len(host.published("Out")) == sent


@pytest.mark.parametrize(("text", "sent"), [("1", 0), ("", 1)])
async def test_publications_on_disk_wait_for_as_long_as_is_said(text: str, sent: int) -> None:
    wall = [time.time()]
    with memory_store(now=lambda: wall[0]) as store:
        world = World(publishing(outbox="disk"), store=store)
        async with world.running():
            await world.served()
            world.agent.stored["kepm.outbox.disk.max_days"] = text
            await world.serving.settings.refresh()
            await anyio.sleep(1)
            world.broker.kill()
            await world.plugin.publish("Out", b"x")
            wall[0] += 2 * DAY
            await world.reconnected(lambda: setattr(world.broker, "up", True))
            await anyio.sleep(31)
            assert world.on("P/Status")[-1]["counters"]["notSent"] == 1 - sent
    assert len([each for each in world.published if each.topic == "P/Out"]) == sent


# --- what waits to be handled -----------------------------------------------------------------------------------------


async def test_a_journal_that_is_made_smaller_takes_nothing_more_and_loses_nothing() -> None:
    held = Held(fresh())
    async with hosted(held.kind) as host:
        for number in range(3):
            await host.publish("Events", bytes([number]) * MIB)
            await anyio.sleep(1)
        await host.change_setting("kepm.journal.max_mb", 2)
        await host.publish("Events", b"3")
        degraded = await report(host)
        assert degraded["state"] == "degraded"
        assert "the journal holds 3 messages and is full" in degraded["reason"]
        await host.change_setting("kepm.journal.max_mb", 4)
        assert (await report(host))["state"] == "running"
        held.gate.set()
        await anyio.sleep(1)
    assert [payload[:1] for payload in held.handled] == [b"\0", b"\1", b"\2", b"3"]


@pytest.mark.parametrize(("text", "old"), [("1", 1), ("", 0)])
async def test_a_message_waits_for_as_long_as_is_said_and_is_a_dead_letter_then(text: str, old: int) -> None:
    wall = [time.time()]
    held = Held(fresh())
    with memory_store(now=lambda: wall[0]) as store:
        world = World(held.kind, store=store)
        async with world.running():
            await world.served()
            for _ in range(2):  # the second one waits behind the first
                world.send("P/Events")
            await anyio.sleep(1)
            wall[0] += 2 * DAY
            world.agent.stored["kepm.journal.max_days"] = text
            await world.serving.settings.refresh()
            held.gate.set()
            await anyio.sleep(31)
            assert world.on("P/Status")[-1]["counters"]["tooOld"] == old
            assert [letter.reason for letter in store.dead_letters()] == ["too old"] * old
    assert len(held.handled) == 2 - old


def failing() -> type[Plugin]:
    kind = fresh()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[bytes]) -> None:
            raise LookupError

    return kind


@pytest.mark.parametrize(
    ("key", "value", "size", "left"),
    [("kepm.deadletters.max", 2, 1, 2), ("kepm.deadletters.max_mb", 1, 300_000, 3)],
)
async def test_dead_letters_are_bounded_when_the_next_one_comes(key: str, value: int, size: int, left: int) -> None:
    async with hosted(failing(), strict=False) as host:
        for _ in range(5):
            await host.publish("Events", bytes(size))
        await anyio.sleep(1)
        await host.change_setting(key, value)
        assert await counters(host) == await counters(host) | {"deadLetters": 5, "deadLettersDropped": 0}
        await host.publish("Events", bytes(size))
        assert await counters(host) == await counters(host) | {"deadLetters": left, "deadLettersDropped": 6 - left}
        await host.plugin.revert_settings()
        await host.publish("Events", bytes(size))
        assert (await counters(host))["deadLetters"] == left + 1


async def test_dead_letters_are_kept_for_as_long_as_is_said() -> None:
    wall = [time.time()]
    with memory_store(now=lambda: wall[0]) as store:
        world = World(failing(), store=store)
        async with world.running():
            await world.served()
            for value, left in (("", 2), ("1", 1), ("60", 2)):
                world.agent.stored["kepm.deadletters.max_days"] = value
                await world.serving.settings.refresh()
                for _ in range(2 if not value else 1):
                    world.send("P/Events")
                    await anyio.sleep(1)
                assert len(store.dead_letters()) == left
                wall[0] += 2 * DAY if not value else 40 * DAY


async def test_what_may_be_kept_is_known_before_the_file_is_opened(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for number in range(1_000):
            store.bury(Received("P/Events", b"%d" % number, 1), reason="failed", details="")
    async with hosted(fresh(), data_dir=tmp_path, settings={"kepm.deadletters.max": 500}) as host:
        assert await counters(host) == await counters(host) | {"deadLetters": 500, "deadLettersDropped": 500}


async def test_messages_that_wait_for_one_handler_in_memory_are_bounded() -> None:
    held = Held(fresh())
    async with hosted(held.kind) as host:
        await host.change_setting("kepm.handler.waiting", 100)
        for number in range(150):
            await host.publish("Events", bytes([number]), qos=0)
        assert (await counters(host))["dropped"] == 50
        await host.plugin.revert_settings()
        for number in range(150, 250):
            await host.publish("Events", bytes([number]), qos=0)
        assert (await counters(host))["dropped"] == 50, "there is room again"
        held.gate.set()
        await anyio.sleep(1)
    assert [payload[0] for payload in held.handled] == [0, *range(51, 250)], "the oldest have gone"


async def test_so_are_their_bytes() -> None:
    held = Held(fresh(journal=False))
    async with hosted(held.kind) as host:
        await host.change_setting("kepm.handler.waiting_mb", 8)
        for number in range(4):
            await host.publish("Events", bytes([number]) * 2 * MIB)
        assert "Event is behind, and there is no journal; nothing more is read" in (await report(host))["reason"]
        held.gate.set()
        assert (await report(host))["state"] == "running"
    assert [payload[0] for payload in held.handled] == list(range(4))


async def test_with_a_journal_what_is_beyond_is_read_back() -> None:
    held = Held(fresh())
    async with hosted(held.kind) as host:
        await host.change_setting("kepm.handler.waiting", 100)
        for number in range(250):
            await host.publish("Events", bytes([number]))
        await anyio.sleep(1)
        await host.plugin.revert_settings()
        held.gate.set()
        await anyio.sleep(1)
        assert await counters(host) == await counters(host) | {"handled": 250, "dropped": 0, "refused": 0}
    assert held.handled == [bytes([number]) for number in range(250)]


async def test_a_message_that_ends_the_process_is_given_up_after_as_many_deliveries_as_is_said(tmp_path: Path) -> None:
    for text, crashed in (("3", 0), ("2", 1)):
        kind, folder = fresh(), tmp_path / text
        held = Held(kind)
        held.gate.set()
        with open_store(folder) as store:
            [row] = store.journal([Received("P/Events", b"", 1)])
        with open_store(folder) as store:
            store.begin(row.id, 2)
        async with hosted(kind, data_dir=folder, settings={"kepm.handler.deliveries": text}) as host:
            assert (await counters(host))["crashed"] == crashed
        assert len(held.handled) == 1 - crashed


async def test_identities_are_remembered_for_as_long_as_is_said_and_no_more_than_so_many() -> None:
    kind = fresh()

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        dedupe = "id"

        async def handle(self, message: Message[dict[str, int]]) -> None: ...

    async with hosted(kind) as host:

        async def repeated(between: Callable[[], Any]) -> int:
            before = (await counters(host))["duplicates"]
            await host.publish("Events", {"id": 1})
            await between()
            await host.publish("Events", {"id": 1})
            return (await counters(host))["duplicates"] - before

        async def others() -> None:
            for number in range(2, 120):
                await host.publish("Events", {"id": number})

        async def minutes() -> None:
            await anyio.sleep(120)

        await host.change_setting("kepm.identities.max", 100)
        assert await repeated(others) == 0
        await host.change_setting("kepm.identities.seconds", 60)
        assert await repeated(minutes) == 0
        await host.plugin.revert_settings()
        await anyio.sleep(700)
        assert await repeated(minutes) == 1
        await anyio.sleep(700)
        assert await repeated(others) == 1


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_a_knob_that_is_refused_is_named_and_leaves_all_others_alone() -> None:
    async with hosted(Deep) as host:
        await host.change_setting("kepm.heartbeat", 5)
        with pytest.raises(SettingsError, match=r"'kepm\.heartbeat' must be a number, at least 1, "):
            await host.change_setting("kepm.heartbeat", "0")
        degraded = await report(host)
        assert degraded["state"] == "degraded"
        assert "what was in force stays: 'kepm.heartbeat' must be a number" in degraded["reason"]
        await host.change_setting("depth", 4)
        await host.change_setting("kepm.drain", 20)
        assert host.plugin.settings.depth == 4, "the author's settings go on"
        before = len(host.published("Status"))
        await anyio.sleep(51)
        assert len(host.published("Status")) - before == 10, "the last good one is in force"
        await host.change_setting("kepm.heartbeat", "30")
        await anyio.sleep(31)
        assert host.published("Status")[-1]["state"] == "running"
        records = [each for each in host.published("/KeeperLogger") if each["message"].startswith("knob")]
    assert [each["message"] for each in records] == [
        "knobs.changed",  # to 5
        "knob.refused",  # once, though it was looked at ten times
        "knobs.changed",  # the drain
        "knobs.changed",  # to 30
    ]
    assert records[2]["kepm.drain"] == 20


async def test_an_authors_settings_that_are_wrong_do_not_hold_up_a_knob() -> None:
    async with hosted(Deep) as host:
        with pytest.raises(SettingsError, match="depth"):
            await host.change_setting("depth", "deep")
        with suppress(SettingsError):  # that of the author's still
            await host.change_setting("kepm.log.level", "Debug")
        log.debug("told")
        await anyio.sleep(1)
        assert messages(host) == [("Debug", "told")]


async def test_keys_that_are_no_knob_are_listed_once() -> None:
    async with hosted(fresh()) as host:
        host.agent.stored["kepm.hartbeat"] = "5"
        host.agent.stored["kepm.colour"] = "red"
        for value in ("5", "6"):
            host.agent.stored["kepm.drain"] = value
            await anyio.sleep(6)
        records = [each for each in host.published("/KeeperLogger") if each["message"] == "knob.unknown"]
        assert host.published("Status")[-1]["state"] == "running"
    assert [(each["key"], each.get("meant")) for each in records] == [
        ("kepm.colour", None),
        ("kepm.hartbeat", "kepm.heartbeat"),
    ]


async def test_a_tests_own_slip_is_named_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match=r"the framework has no setting 'kepm\.hartbeat'; did you mean 'kepm\.heartb"):
        async with hosted(fresh(), settings={"kepm.hartbeat": "5"}):
            pytest.fail("it must not start")
    async with hosted(fresh()) as host:
        with pytest.raises(UsageError, match=r"'kepm\.colour'; there is: kepm\.log\.level, "):
            await host.change_setting("kepm.colour", "red")


async def test_what_the_plugin_edits_leaves_the_knobs_alone() -> None:
    async with hosted(Deep, settings={"kepm.drain": "20"}) as host:
        async with host.plugin.edit_settings() as draft:
            draft.depth = 4
        assert host.agent.stored == {"depth": "4"}
        assert host.agent.system.keys() >= {BROKER_HOST_KEY}
