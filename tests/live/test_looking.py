"""When the agent is asked, how soon a change is told of, what is refused, and what is kept for the next start."""

import json
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Change, Settings, setting
from kepm_plugin.errors import (
    AgentRefused,
    AgentUnreachable,
    BadAgentAnswer,
    SettingsConflict,
    SettingsError,
    SettingsNotStored,
    SettingsReadOnly,
    UnknownPlugin,
)
from tests.live.model import FIRST, INTERVAL, KEYS, Agent, Numbers, Plugin, play


class Tunnel(Settings):
    host: str = setting(default="localhost", aliases=["server"])
    token: str = setting(default="first-secret", secret=True)


class Nested(Settings):
    tunnel: Tunnel = Tunnel()
    depth: int = setting(default=1, ge=1)


def logged(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return [record.message for record in caplog.records].count(name)


# --- when it looks ----------------------------------------------------------------------------------------------------


def test_an_idle_plugin_makes_one_small_request_an_interval() -> None:
    async def run(plugin: Plugin) -> None:
        await anyio.sleep(1)
        plugin.agent.requests.clear()
        await anyio.sleep(INTERVAL * 9.5)

    asked = play(run).agent.requests
    assert asked.count(("STATUS",)) in (8, 9, 10)
    assert set(asked) <= {("STATUS",), ("GET",)}
    assert asked.count(("GET",)) == 1, "one look of ten, for insurance"


class NoStatus(Agent):
    """Has another answer to a question for the status."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def status(self, plugin: str) -> dict[str, object]:
        self.requests.append(("STATUS",))
        raise self.error


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (UnknownPlugin("404"), 1),
        (AgentRefused("403"), 1),
        (BadAgentAnswer("405", status=405), 1),
        (BadAgentAnswer("500", status=500), 10),
    ],
)
def test_without_a_status_all_settings_are_read_each_time(error: Exception, asked: int) -> None:
    async def run(plugin: Plugin) -> None:
        await anyio.sleep(1)
        gets = plugin.agent.requests.count(("GET",))
        await anyio.sleep(INTERVAL * 9.5)
        assert plugin.agent.requests.count(("GET",)) - gets in (8, 9, 10)
        plugin.agent.stored["a"] = "5"
        await anyio.sleep(INTERVAL + 1)
        assert plugin.live.current.a == 5

    requests = play(run, agent=NoStatus(error)).agent.requests
    found = requests.count(("STATUS",))
    assert found == 1 if asked == 1 else found >= asked - 2


class Stuck(Agent):
    """Has a hash that stands for nothing."""

    async def status(self, plugin: str) -> dict[str, object]:
        await super().status(plugin)
        return {"settingsHash": "always the same"}


def test_a_hash_that_does_not_move_is_found_out_within_ten_looks(caplog: pytest.LogCaptureFixture) -> None:
    async def run(plugin: Plugin) -> None:
        await anyio.sleep(1)
        plugin.agent.stored["a"] = "5"
        await anyio.sleep(INTERVAL * 10 + 1)
        assert plugin.live.current.a == 5
        plugin.agent.stored["a"] = "6"
        await anyio.sleep(INTERVAL + 1)
        assert plugin.live.current.a == 6

    play(run, agent=Stuck())
    assert logged(caplog, "settings.hash_not_trusted") == 1


def test_a_change_is_told_of_within_the_interval_and_a_second() -> None:
    changed: list[float] = []

    async def run(plugin: Plugin) -> None:
        for number in range(1, 9):
            await anyio.sleep(INTERVAL * 2 + number * 0.7)
            plugin.agent.stored["a"] = str(number)
            changed.append(anyio.current_time())
        await anyio.sleep(INTERVAL * 2)

    told = play(run).changes
    assert [change.new.a for _, change in told] == list(range(1, 9))
    late = [when - since for (when, _), since in zip(told, changed, strict=True)]
    assert max(late) <= INTERVAL + 1


class Thorough(Plugin):
    """Its hook takes an hour for the first change."""

    async def _changed(self, change: Change[Any]) -> None:
        await super()._changed(change)
        if change.new.a == 1:
            await anyio.sleep(3600)


def test_a_hook_that_takes_its_time_keeps_nobody_from_looking() -> None:
    async def run(plugin: Plugin) -> None:
        for number in (1, 2, 3):
            plugin.agent.stored["a"] = str(number)
            await anyio.sleep(2 * INTERVAL)
            assert plugin.live.current.a == number
        await anyio.sleep(3600)

    told = [change for _, change in play(run, plugin=Thorough).changes]
    assert [(change.old.a, change.new.a) for change in told] == [(FIRST, 1), (1, 3)], "one call at a time"


def test_without_a_link_nothing_is_asked_and_with_it_again_at_once() -> None:
    async def run(plugin: Plugin) -> None:
        await anyio.sleep(1)
        plugin.live.rest()
        plugin.agent.requests.clear()
        plugin.agent.stored["a"] = "5"
        await anyio.sleep(3600)
        assert plugin.agent.requests == []
        plugin.live.resume()
        await anyio.sleep(0.5)
        assert plugin.live.current.a == 5

    play(run)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_written_in_the_order_of_declaration() -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.edit(c=3, a=1, b=FIRST)

    assert play(run).agent.puts() == ["a", "c"]


def test_what_somebody_else_changed_is_a_conflict_and_the_newest_is_taken() -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.stored["b"] = "5"
        with pytest.raises(SettingsConflict, match="b was changed") as caught:
            await plugin.edit(a=1, b=2)
        assert caught.value.exit_code == 77
        assert (plugin.agent.puts(), plugin.live.current.b, plugin.live.current.a) == ([], 5, FIRST)
        await plugin.edit(a=1, b=2)
        plugin.agent.stored["c"] = "6"
        await plugin.edit(a=3)  # of another key, that is none

    assert play(run).agent.stored == {"a": "3", "b": "2", "c": "6"}


def test_what_somebody_else_has_just_changed_is_a_conflict_also_where_it_breaks_a_rule() -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.stored["a"] = "-9999"
        with pytest.raises(SettingsConflict, match="a was changed"):
            await plugin.edit(a=1)
        assert plugin.agent.stored["a"] == "-9999"
        await anyio.sleep(2 * INTERVAL)
        await plugin.edit(a=2)  # It is known by now, and refused: this mends it.

    assert play(run).agent.stored["a"] == "2"


class ReadOnly(Agent):
    """Lets nobody write."""

    async def put_setting(self, plugin: str, key: str, value: Any) -> None:
        raise AgentRefused("403: PUT")


def test_an_agent_that_lets_nobody_write_is_named() -> None:
    async def run(plugin: Plugin) -> None:
        with pytest.raises(SettingsReadOnly, match="read its settings but not write") as caught:
            await plugin.edit(a=1)
        assert caught.value.exit_code == 78
        assert plugin.live.current.a == FIRST

    play(run, agent=ReadOnly())


def test_an_agent_that_says_yes_and_stores_nothing_is_named() -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.faults = ["lost"] * 3
        with pytest.raises(SettingsNotStored, match="put_value_field"):
            await plugin.edit(a=1, b=2, c=3)

    assert play(run).agent.stored == {}


def test_what_fails_in_the_middle_is_taken_back_and_said_so() -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.faults = ["", "5xx", "5xx"]
        with pytest.raises(BadAgentAnswer, match="what was written was rolled back"):
            await plugin.edit(a=1, b=2, c=3)
        plugin.agent.faults = ["", *["before"] * 4]
        with pytest.raises(AgentUnreachable, match="is rolled back as soon as"):
            await plugin.edit(a=1, b=2)
        assert plugin.troubles[-1] is None
        await anyio.sleep(1)

    assert set(play(run).agent.stored.values()) == {str(FIRST)}


@pytest.mark.parametrize("fault", ["before", "after", "late", "5xx"])
def test_a_write_of_which_nobody_knows_whether_it_arrived_is_made_once_more(fault: str) -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.own(101, "", fault)
        assert plugin.agent.puts() == ["a", "b", "b", "c"]
        assert plugin.live.current == Numbers(a=101, b=101, c=101)
        await plugin.own(102)
        plugin.agent.arrive()
        await anyio.sleep(2 * INTERVAL)
        assert set(plugin.agent.stored.values()) == {"102"}

    assert {one.a for one in play(run).taken} == {FIRST, 101, 102}


class Slow(Agent):
    """Takes its time for the second key."""

    async def put_setting(self, plugin: str, key: str, value: Any) -> None:
        await super().put_setting(plugin, key, value)
        if key == "b" and str(value) == "2":
            await anyio.sleep(3600)


def test_an_edit_that_is_cut_off_is_taken_back() -> None:
    async def run(plugin: Plugin) -> None:
        with anyio.move_on_after(10) as scope:
            await plugin.edit(a=1, b=2, c=3)
        assert scope.cancelled_caught

    left = play(run, agent=Slow())
    assert left.agent.stored == {"a": str(FIRST), "b": str(FIRST)}
    assert {one.a for one in left.taken} == {FIRST}


class Interleaved(Agent):
    """Others write the second of two keys while the plugin writes its own."""

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        await super().put_setting(plugin, key, value)
        self.stored["c"] = "1"


def test_half_of_what_others_change_is_not_taken_along_with_an_edit() -> None:
    async def run(plugin: Plugin) -> None:
        await anyio.sleep(1)
        plugin.agent.stored["b"] = "1"
        await plugin.edit(a=FIRST + 1)
        await anyio.sleep(INTERVAL)

    taken = [(one.a, one.b, one.c) for one in play(run, agent=Interleaved()).taken]
    assert list(dict.fromkeys(taken)) == [(FIRST, FIRST, FIRST), (FIRST + 1, FIRST, FIRST), (FIRST + 1, 1, 1)]


def test_an_edit_may_mend_what_breaks_a_rule() -> None:
    async def run(plugin: Plugin) -> None:
        plugin.agent.stored["a"] = "-999"
        await anyio.sleep(INTERVAL * 2)
        assert "sum" in (plugin.troubles[-1] or "")
        assert plugin.live.current.a == FIRST
        await plugin.edit(a=1)
        assert (plugin.live.current.a, plugin.troubles[-1]) == (1, None)

    play(run)


def test_a_revert_returns_what_it_changed() -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.edit(a=1, c=3)
        change = await plugin.live.revert()
        assert change is not None
        assert (sorted(change.names), change.old.a, change.new.a) == (["a", "c"], 1, FIRST)
        assert await plugin.live.revert() is None

    play(run)


def test_nested_keys_and_old_names_are_written_where_they_count() -> None:
    async def run(plugin: Plugin) -> None:
        assert plugin.live.current.tunnel.host == "old.example"
        await plugin.edit(tunnel=Tunnel(host="new.example", token="first-secret"), depth=2)
        current = plugin.live.current
        assert (current.tunnel.host, current.depth) == ("new.example", 2)
        assert current == Nested.parse(await plugin.agent.settings("P"))
        await anyio.sleep(INTERVAL * 3)
        assert plugin.live.current is current

    stored = play(run, None, Nested, Agent({"tunnel.server": "old.example"})).agent.stored
    assert stored["tunnel.host"] == "new.example"
    assert stored["depth"] == "2"


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_last_good_settings_are_in_force_where_the_agents_break_a_rule(tmp_path: Path) -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.edit(a=7)
        plugin.agent.stored["b"] = "-999"
        await plugin.start()
        assert plugin.live.current == Numbers(a=7)
        (tmp_path / "settings.good.json").unlink()
        with pytest.raises(SettingsError, match="sum"):
            await plugin.start()

    play(run, tmp_path)


def test_nothing_is_kept_of_settings_that_a_plugin_does_not_have(tmp_path: Path) -> None:
    async def run(plugin: Plugin) -> None:
        await plugin.start()
        assert plugin.live.current == Settings()

    play(run, tmp_path, Settings)
    assert [*tmp_path.iterdir()] == []


def test_no_secret_is_in_a_file_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def read() -> None:
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            seen[file.name] = seen.get(file.name, "") + file.read_text("utf-8")

    class Reading(Agent):
        async def put_setting(self, plugin: str, key: str, value: Any) -> None:
            read()
            await super().put_setting(plugin, key, value)

    async def run(plugin: Plugin) -> None:
        await plugin.edit(tunnel=Tunnel(host="h", token="second-secret"), depth=2)

    play(run, tmp_path, Nested, Reading({}))
    read()
    assert {"settings.open.json", "settings.good.json"} <= set(seen)
    assert "tunnel.token" in seen["settings.open.json"]
    assert "secret" not in "".join(seen.values())


@pytest.mark.parametrize("name", ["settings.open.json", "settings.good.json"])
@pytest.mark.parametrize("text", ["{", '{"schema": 99}', '{"transaction": null, "late": [], "schema": 2}'])
def test_a_file_that_cannot_be_read_is_set_aside(
    name: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(text, "utf-8")

    async def run(plugin: Plugin) -> None:
        await plugin.own(101)
        assert plugin.live.current.a == 101

    play(run, tmp_path)
    assert [file.read_text("utf-8") for file in tmp_path.glob(f"{name}.damaged-*")] == [text]
    assert logged(caplog, "settings.file_set_aside") == 1


def test_a_folder_that_cannot_be_had_costs_no_more_than_what_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    caplog.set_level("INFO")

    async def run(plugin: Plugin) -> None:
        await plugin.own(101)
        await plugin.own(102, "", "before", "before")
        assert plugin.live.current == Numbers(a=101, b=101, c=101)

    play(run, tmp_path / "file")
    assert logged(caplog, "settings.no_folder") == 1
    assert logged(caplog, "settings.unrecorded") == 1


# --- what is reported -------------------------------------------------------------------------------------------------


def test_the_report_has_values_and_defaults_and_masks_secrets() -> None:
    reports: list[dict[str, Any]] = []

    async def run(plugin: Plugin) -> None:
        reports.append(plugin.live.report())
        plugin.agent.stored |= {"depth": "0"}
        await anyio.sleep(INTERVAL * 2)
        reports.append(plugin.live.report())

    play(run, None, Nested, Agent({"tunnel.server": "old", "theirs": "1", "tunnel.token": "s3cret"}))
    good, bad = json.loads(json.dumps(reports))
    assert good["settings"]["tunnel.host"] == {"value": "old", "default": "localhost"}
    assert good["settings"]["tunnel.token"]["value"] == good["settings"]["tunnel.token"]["default"]
    assert (good["unknown"], good["renamed"]) == (["theirs"], {"tunnel.server": "tunnel.host"})
    assert (good["refused"], good["transaction"]) == (None, None)
    assert bad["settings"]["depth"]["value"] == 1
    assert (bad["refused"]["key"], bad["refused"]["value"]) == ("depth", "0")
    assert "secret" not in json.dumps(reports)
    assert "s3cret" not in json.dumps(reports)
    assert set(KEYS).isdisjoint(good["settings"])
