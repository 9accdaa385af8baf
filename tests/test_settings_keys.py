"""Keys at the agent: aliases of old ones, parts below one, and what is unknown."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin import Plugin, Secret, Settings, Size, setting
from kepm_plugin.errors import PluginDefinitionError, SettingsError, UsageError
from kepm_plugin.settings import (
    Scalar,
    aliased_keys,
    declares,
    flat,
    leaves_of,
    manifest_defaults,
    read_key,
    secret_keys,
    standing_aliases,
    unknown_keys,
)
from kepm_plugin.testing import hosted

PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Inner(Settings):
    root: str = setting(default="/etc", aliases=("folder",))
    on: bool = True


class Renamed(Settings):
    depth: int = setting(default=3, key="scan.depth", aliases=("depth", "levels"), le=100)
    token: str = setting(default="", aliases=("password",), secret=True)
    needed: int = setting(aliases=["required"])
    label: str | None = setting(default=None, aliases=("name.old",))
    hosts: list[str] = setting(default=["a"], aliases=("servers",))
    pause: timedelta = setting(default=timedelta(seconds=60), aliases=("wait",))
    inner: Inner = setting(default=Inner(), aliases=("older",))


def parsed(**values: str) -> Renamed:
    return Renamed.parse({"needed": "1"} | {key.replace("__", "."): text for key, text in values.items()})


# --- aliases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name", "expected", "used"),
    [
        ({}, "depth", 3, None),
        ({"depth": "5"}, "depth", 5, "depth"),
        ({"levels": "5"}, "depth", 5, "levels"),
        ({"levels": "5", "depth": "6"}, "depth", 6, "depth"),
        ({"DEPTH": "5"}, "depth", 5, "depth"),
        ({"scan.depth": "7", "depth": "5"}, "depth", 7, None),
        ({"scan.depth": "3", "depth": "5"}, "depth", 5, "depth"),  # the default of the file hides nothing
        ({"scan.depth": "3.0", "depth": "5"}, "depth", 5, "depth"),
        ({"scan.depth": "3", "depth": "3"}, "depth", 3, "depth"),
        ({"wait": "5s", "pause": "1m"}, "pause", timedelta(seconds=5), "wait"),
        ({"wait": "5s", "pause": "00:01:00"}, "pause", timedelta(seconds=5), "wait"),
        ({"token": "", "password": "p"}, "token", "", None),  # no file has a secret: somebody has set it
        ({"password": "p"}, "token", "p", "password"),
        ({"label": "", "name.old": "x"}, "label", None, None),  # no file has None either
        ({"needed": "1", "required": "2"}, "needed", 1, None),
        ({"servers.0": "x", "servers.1": "y"}, "hosts", ["x", "y"], "servers"),
        ({"hosts": '["a"]', "servers": '["x"]'}, "hosts", ["x"], "servers"),
        ({"hosts.0": "a", "servers": '["x"]'}, "hosts", ["x"], "servers"),
        ({"hosts.0": "b", "servers": '["x"]'}, "hosts", ["b"], None),
        ({"inner.folder": "/a"}, "inner", Inner(root="/a"), "inner.folder"),
        ({"older.root": "/a"}, "inner", Inner(root="/a"), "older.root"),
        ({"older.folder": "/a"}, "inner", Inner(root="/a"), "older.folder"),
        ({"older.on": "no"}, "inner", Inner(on=False), "older.on"),
        ({"inner.root": "/b", "older.root": "/a"}, "inner", Inner(root="/b"), None),
    ],
)
def test_an_alias_counts_where_the_key_has_nothing_or_its_default(
    values: dict[str, str], name: str, expected: object, used: str | None
) -> None:
    values = {"needed": "1"} | values
    assert getattr(Renamed.parse(values), name) == expected
    keys = [alias for alias, _ in aliased_keys(Renamed, values)]
    assert keys == ([] if used is None else [used])


def test_a_required_setting_may_be_found_under_an_alias() -> None:
    assert Renamed.parse({"required": "2"}).needed == 2
    assert aliased_keys(Renamed, {"required": "2"}) == (("required", "needed"),)
    assert read_key(Renamed, {"required": "2"}, "needed") == 2
    assert read_key(Renamed, {}, "needed") is None


def test_an_error_under_an_alias_names_both_keys() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(levels="101")
    assert caught.value.key == "scan.depth"
    assert str(caught.value) == (
        "Renamed: 'scan.depth' must be a whole number, at most 100, not '101' (it is set as 'levels')"
    )
    with pytest.raises(SettingsError, match=r"text \(it is set as 'password'\)") as caught:
        parsed(password="\ud800hunter2")
    assert "hunter2" not in str(caught.value)
    assert aliased_keys(Renamed, {"needed": "1", "levels": "101"}) == ()


def test_a_manifest_has_the_keys_only() -> None:
    assert set(manifest_defaults(Renamed)) == {"scan.depth", "hosts", "pause", "inner.root", "inner.on"}


def test_aliases_of_secrets_are_secret_keys() -> None:
    assert secret_keys(Renamed) == {"token", "password"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"x": setting(default=1, aliases=("y",)), "y": 1},
            "Sample.y has the key 'y', as x has; give one of them another",
        ),
        ({"x": setting(default=1, aliases=("Z",)), "y": setting(default=1, aliases=("z",))}, "alias 'z', as x has"),
        ({"x": setting(default=1, aliases=("X",)), "y": 1}, "Sample.x has one key twice, 'x' and its aliases"),
        ({"x": setting(default=1, aliases=("name",)), "y": 1}, "Sample.x has the alias 'name', which is a field of"),
        ({"x": setting(default=1, aliases=("kepm.x",)), "y": 1}, "the alias 'kepm.x', which begins with kepm."),
        ({"x": setting(default=1, aliases=("a b",)), "y": 1}, "the alias 'a b', which is no part of a path"),
    ],
)
def test_an_alias_obeys_the_rules_of_keys(body: dict[str, object], expected: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        type("Sample", (Settings,), {"__annotations__": {"x": int, "y": int}, **body})
    assert expected in str(caught.value)


@PATIENT
@given(
    st.fixed_dictionaries(
        {"needed": st.just("1")},
        optional={key: st.sampled_from(["3", "4", "5"]) for key in ("scan.depth", "depth", "levels")},
    ),
    st.sampled_from([3, 4]),
)
def test_what_is_written_with_its_standing_aliases_is_read_back(values: dict[str, str], new: int) -> None:
    """Whatever stands under old keys: also the default, which alone would let them count again."""
    written = values | {key: str(new) for key in ("scan.depth", *standing_aliases(Renamed, values, "scan.depth"))}
    assert read_key(Renamed, written, "scan.depth") == new
    assert Renamed.parse(written).depth == new


def test_an_alias_stands_whatever_its_text_is_and_never_for_a_secret() -> None:
    assert standing_aliases(Renamed, {"levels": "x"}, "scan.depth") == ("levels",)
    assert standing_aliases(Renamed, {"password": "x"}, "token") == ()
    assert standing_aliases(Renamed, {"scan.depth": "1"}, "scan.depth") == ()


class Meter(Plugin):
    id = "Meter"
    settings: Renamed


async def test_an_edit_back_to_the_default_counts_although_an_old_key_is_set() -> None:
    async with hosted(Meter, settings={"needed": 1, "depth": 5, "scan.depth": 3}) as host:
        assert host.plugin.settings.depth == 5
        async with host.plugin.edit_settings() as draft:
            draft.depth = 3
        assert host.plugin.settings.depth == 3
        async with host.plugin.edit_settings() as draft:
            draft.depth = 4
        assert host.plugin.settings.depth == 4


# --- parts below a key ------------------------------------------------------------------------------------------------


class Proxy(msgspec.Struct):
    host: str
    ports: list[int] = []
    wait: timedelta = timedelta(seconds=5)


@dataclasses.dataclass
class Target:
    name: str
    proxy: Proxy | None = None


class Parts(Settings):
    hosts: list[str] = setting(default=[])
    maybe: list[int] | None = None
    ports: frozenset[int] = frozenset()
    pair: tuple[int, Path] | None = None
    grid: tuple[list[int], ...] = ()
    sizes: dict[str, Size] = setting(default={})
    lists: dict[str, list[int]] = setting(default={})
    target: Target | None = None
    targets: list[Target] = setting(default=[])
    secrets: list[Secret] = setting(default=[])


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"hosts.0": "a", "hosts.1": "b"}, "hosts", ["a", "b"]),
        ({"hosts:1": "b", "hosts:0": "a"}, "hosts", ["a", "b"]),
        ({"Hosts.0": "a", "hosts:0": "a"}, "hosts", ["a"]),
        ({**{f"hosts.{n}": str(n) for n in range(12)}}, "hosts", [str(n) for n in range(12)]),
        ({"hosts": '["c"]', "hosts.0": "a"}, "hosts", ["c"]),
        ({"hosts": "", "hosts.0": "a"}, "hosts", ["a"]),
        ({"maybe": "", "maybe.0": "1"}, "maybe", None),
        ({"maybe.0": "1"}, "maybe", [1]),
        ({"hosts.size": "1", "hosts.00": "1", "hosts.": "x", "hosts.0.a": "x"}, "hosts", []),
        ({"ports.0": "1", "ports.1": "2"}, "ports", frozenset({1, 2})),
        ({"pair.0": "1", "pair.1": "/a"}, "pair", (1, Path("/a"))),
        ({"grid.0.0": "1", "grid.0.1": "2", "grid.1": "[3]"}, "grid", ([1, 2], [3])),
        ({"sizes.a": "1KB", "sizes.b.c:d": "2"}, "sizes", {"a": Size(1000), "b.c:d": Size(2)}),
        ({"lists.a.0": "1", "lists.A": "[2]"}, "lists", {"a": [1], "A": [2]}),
        ({"target.name": "x"}, "target", Target("x")),
        ({"target.NAME": "x", "target:proxy:host": "h"}, "target", Target("x", Proxy("h"))),
        (
            {"target.name": "x", "target.proxy.ports.0": "1", "target.proxy.host": "h", "target.proxy.wait": "1m"},
            "target",
            Target("x", Proxy("h", [1], timedelta(minutes=1))),
        ),
        ({"targets.0.name": "x", "targets.1": '{"name": "y"}'}, "targets", [Target("x"), Target("y")]),
    ],
)
def test_parts_are_read_where_the_key_is_not_there(values: dict[str, str], name: str, expected: object) -> None:
    assert getattr(Parts.parse(values), name) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hosts.0": "a", "hosts.2": "b"}, "'hosts' must be JSON text of a list[str], not {'0': 'a', '2': 'b'}"),
        ({"maybe.0": "x"}, "'maybe' must be JSON text of a list[int], or empty, not {'0': 'x'}"),
        ({"Hosts.0": "a", "hosts:0": "b"}, "'hosts' has several values, under Hosts.0, hosts:0"),
        ({"target.NAME": "x", "target.name": "y"}, "'target' must be JSON text of a Target, or empty, not "),
        ({"target.proxy.host": "h"}, "'target' must be JSON text of a Target, or empty, not "),
        ({"ports.0": "1", "ports.1": "1"}, "'ports' must be JSON text of a frozenset[int], not "),
        ({"pair.0": "1"}, "'pair' must be JSON text of a tuple[int, Path], or empty, not "),
    ],
)
def test_parts_that_do_not_fit_are_an_error_with_key_and_rule(values: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Parts.parse(values)
    assert expected in str(caught.value)
    assert caught.value.key == expected.split("'")[1]


def test_blank_text_is_not_the_empty_text_that_means_none() -> None:
    assert Parts.parse({"maybe": ""}).maybe is None
    assert Parts.parse({"maybe": " NULL "}).maybe is None
    with pytest.raises(SettingsError, match="'maybe' must be JSON text of"):
        Parts.parse({"maybe": " "})


def test_secret_parts_are_in_no_error() -> None:
    with pytest.raises(SettingsError) as caught:
        Parts.parse({"secrets.0": "hunter2", "secrets.2": "hunter3"})
    assert str(caught.value) == "Parts: 'secrets' must be JSON text of a list[Secret]"


WORDS = st.text("abcXYZ 09", min_size=1, max_size=4)
TARGETS = st.builds(
    Target, WORDS, st.none() | st.builds(Proxy, WORDS, st.lists(st.integers(0, 9), max_size=2), st.timedeltas())
)
PARTS = st.builds(
    Parts,
    hosts=st.lists(WORDS, max_size=12),
    ports=st.frozensets(st.integers(0, 99), max_size=3),
    pair=st.none() | st.tuples(st.integers(), WORDS.map(Path)).filter(lambda pair: abs(pair[0]) < 2**63),
    grid=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=3).map(tuple),
    sizes=st.dictionaries(st.text("a.:", min_size=1, max_size=3), st.integers(0, 10**9).map(Size), max_size=3),
    lists=st.dictionaries(WORDS, st.lists(st.integers(), min_size=1, max_size=2), max_size=2).filter(
        lambda found: all(abs(number) < 2**63 for numbers in found.values() for number in numbers)
    ),
    target=st.none() | TARGETS,
    targets=st.lists(TARGETS, max_size=2),
    secrets=st.lists(WORDS.map(Secret), max_size=3),
)


def opened(key: str, value: Any, separator: str) -> dict[str, str]:
    """Return an array or an object as an agent may flatten it: by keys below, null as empty text."""
    if not isinstance(value, dict | list):
        return {key: "" if value is None else str(value)}
    items: list[Any] = [*value]
    inside: dict[Any, Any] = {**value} if isinstance(value, dict) else dict(enumerate(items))
    found: dict[str, str] = {}
    for name, one in inside.items():
        found |= opened(f"{key}{separator}{name}", one, separator)
    return found


def as_json(value: Scalar) -> object:
    return msgspec.json.decode(value) if isinstance(value, str) and value[:1] in ("[", "{") else value


@PATIENT
@given(PARTS, st.sampled_from(".:"))
def test_a_snapshot_that_the_agent_has_opened_is_read_back(original: Parts, separator: str) -> None:
    values: dict[str, str] = {}
    for key, value in flat(original).items():
        values |= opened(key, as_json(value), separator)
    assert Parts.parse(values) == original
    assert {key: read_key(Parts, values, key) for key in flat(original)} == flat(original)
    assert unknown_keys(Parts, values) == ()


@PATIENT
@given(
    st.dictionaries(
        st.sampled_from([leaf.key for leaf in leaves_of(Parts)]).flatmap(
            lambda key: st.text("01.:a", max_size=4).map(lambda rest: key + rest) | st.just(f"{key}.proxy.host")
        ),
        st.text('01a[]{}"', max_size=4),
        max_size=4,
    )
)
def test_any_keys_and_texts_parse_or_are_a_settings_error(values: dict[str, str]) -> None:
    known = [key for key in values if declares(Parts, key)]
    assert set(unknown_keys(Parts, values)) == set(values) - set(known)
    try:
        parsed = Parts.parse(values)
    except SettingsError as error:
        told = str(error)
    else:
        assert parsed == Parts.parse({key: values[key] for key in known})
        return
    assert any(f"'{leaf.key}'" in told for leaf in leaves_of(Parts))


@pytest.mark.parametrize(
    ("kind", "keys", "unknown"),
    [
        (Parts, "hosts HOSTS.0 hosts:1:x hosts.x sizes.a.b kepm.x", "hosts.x hosts:1:x"),
        (Parts, "target.proxy.ports.3 target.other target.proxy:x", "target.other target.proxy:x"),
        (Renamed, "Depth older.folder servers.0 inner.x zzz", "inner.x zzz"),
    ],
)
def test_unknown_keys_are_those_that_nothing_declares(kind: type[Settings], keys: str, unknown: str) -> None:
    assert unknown_keys(kind, dict.fromkeys(keys.split(), "")) == tuple(unknown.split())


async def test_a_test_may_set_parts_and_aliases_and_is_told_of_slips() -> None:
    async with hosted(Meter, settings={"required": 1, "servers.0": "x"}) as host:
        assert host.plugin.settings.hosts == ["x"]
        await host.change_setting("levels", 9)
        assert host.plugin.settings.depth == 9
        with pytest.raises(UsageError, match=r"Renamed declares no key 'inner\.rot'.*did you mean 'inner\.root'"):
            await host.change_setting("inner.rot", "/a")
