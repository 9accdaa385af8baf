"""Settings: what a class body may declare, what the agent's strings mean, and what comes back from a round trip."""

import dataclasses
import enum
import json
import typing
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.settings import (
    MISSING,
    Change,
    Secret,
    Settings,
    Size,
    changed_keys,
    difference,
    encode,
    fields_of,
    manifest_defaults,
    secrets_of,
    setting,
)

# A loaded machine is no failure: hypothesis builds its tables of characters at the first use.
PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "Slow"


class Rank(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Mixed(enum.Enum):
    A = 1.5


class Bits(enum.Flag):
    A = 1


T = TypeVar("T")


class Generic(msgspec.Struct, typing.Generic[T]):
    one: T


@dataclasses.dataclass
class Endless:
    inner: "list[Endless]"


class Arrayed(msgspec.Struct, array_like=True):
    one: int


@dataclasses.dataclass
class Partial:
    one: int = dataclasses.field(default=1, init=False)


class Cased(msgspec.Struct):
    one: int
    ONE: int


class Changing(msgspec.Struct):
    one: int


class Listed(msgspec.Struct, frozen=True):
    one: list[int]


class Inner(Settings, nested=True):
    token: str = setting(default="", secret=True)


class Holder(msgspec.Struct):
    inner: Inner


@dataclasses.dataclass
class Pretending:
    token: str = setting(default="", secret=True)


class WorkerSettings(Settings):
    root: str = setting(default="/etc", key="scan.root", description="Folder that a scan starts from")
    depth: int = setting(default=3, ge=1, le=10)
    token: str = setting(secret=True)  # no default: required
    plain: bool = True


class EveryKind(Settings):
    text: str = ""
    label: str | None = None
    flag: bool = False
    maybe: bool | None = None
    whole: int = 0
    number: float = 0.0
    size: Rank = Rank.SMALL
    mode: Mode | None = None
    choice: Literal["a", "B", 3] = "a"
    folder: Path = Path("/tmp")
    folders: list[Path] = setting(default=[])
    names: tuple[str, ...] = ()
    weights: dict[str, float] = setting(default={})
    anything: dict[str, object] = setting(default={})
    sizes: list[Rank | None] = setting(default=[])
    modes: dict[str, list[Mode]] | None = None


# --- declarations -----------------------------------------------------------------------------------------------------


ODD: dict[str, Any] = {"min_length": "1"}


def declare(body: dict[str, object], **annotations: object) -> type[Settings]:
    return type("Sample", (Settings,), {"__annotations__": annotations, **body})


def test_fields_tell_what_was_declared() -> None:
    root, depth, token, plain = fields_of(WorkerSettings)
    assert (root.name, root.key, root.type, root.default) == ("root", "scan.root", "str", "/etc")
    assert root.description == "Folder that a scan starts from"
    assert dict(depth.constraints) == {"ge": 1, "le": 10}
    assert (token.required, token.secret, token.default) == (True, True, MISSING)
    assert (plain.key, plain.type, plain.required) == ("plain", "bool", False)
    assert [item.type for item in fields_of(EveryKind)[-4:]] == [
        "dict[str, float]",
        "dict[str, object]",
        "list[Rank | None]",
        "dict[str, list[Mode]] | None",
    ]


def test_a_subclass_adds_to_its_bases_and_constants_are_no_settings() -> None:
    class More(WorkerSettings):
        LIMIT: ClassVar[int] = 7
        depth: int = setting(default=5, le=6)
        extra: str = "x"

    assert [item.name for item in fields_of(More)] == ["root", "depth", "token", "plain", "extra"]
    assert More(token="t").depth == 5
    assert fields_of(Settings) == ()
    assert Settings.parse({"unknown": "1"}) == Settings()


def _said(**words: Any) -> Any:
    return setting(**words)


async def _later(_: object) -> None:
    """Check nothing."""


def _nothing(_: object) -> None:
    """Check nothing."""


@pytest.mark.parametrize(
    ("body", "annotations", "expected"),
    [
        ({}, {"x": complex}, "Sample.x cannot be complex (an unknown type); use str, bool"),
        ({}, {"x": int | str}, "a union other than `X | None`"),
        ({}, {"x": list[complex]}, "cannot be list[complex]"),
        ({}, {"x": list[Mixed]}, "choices other than"),
        ({}, {"x": list[Path | str]}, "cannot be list[Path | str]"),
        ({}, {"x": dict[Path | None, str]}, "a dict whose keys are no plain values"),
        ({}, {"x": dict[Secret, str]}, "a dict whose keys are no plain values"),
        ({}, {"x": dict[tuple[int, ...], str]}, "a dict whose keys are no plain values"),
        ({}, {"x": set[list[int]]}, "a set of what has no hash"),
        ({}, {"x": tuple[()]}, "a tuple that is always empty"),
        ({}, {"x": Any}, "cannot be Any (any type)"),
        ({}, {"x": Generic[int]}, "a generic class"),
        ({}, {"x": Endless}, "a class that contains itself"),
        ({}, {"x": Arrayed}, "a Struct that JSON has as an array"),
        ({}, {"x": Partial}, "a dataclass with a field that is not given at construction"),
        ({}, {"x": Cased}, "two fields whose names differ in casing only"),
        ({}, {"x": Annotated[timedelta, msgspec.Meta(ge=1)]}, "cannot be Annotated[timedelta"),
        ({}, {"x": Literal["\ud800"]}, "a choice that UTF-8 cannot carry"),
        ({}, {"x": Mixed}, "choices other than"),
        ({}, {"x": Bits}, "an unknown type"),
        ({}, {"x": Literal["a", ""]}, "choices other than"),
        ({}, {"x": Literal[True]}, "choices other than"),
        ({}, {"x": Literal["1", 1]}, "two choices with the same text"),
        ({}, {"x": Final[int]}, "cannot be"),
        ({}, {"x": "Unknown"}, "Sample: an annotation cannot be read"),
        ({"x": 5}, {"x": str}, "Sample.x must be text, and its default 5 is not"),
        ({"x": setting(default=11, le=10)}, {"x": int}, "must be a whole number, at most 10, and its default 11"),
        ({"x": setting(default="", min_length=1, secret=True)}, {"x": str}, "and its default is not"),
        ({"x": None}, {"x": int}, "its default None is not"),
        ({"x": setting(ge=1)}, {"x": str}, "Sample.x is str, which takes no ge; leave ge out"),
        ({"x": setting(pattern="a")}, {"x": list[str]}, "takes no pattern"),
        ({"x": setting(pattern="(")}, {"x": str}, "no regular expression"),
        ({"x": setting(ge="soon")}, {"x": timedelta}, "Sample.x has the limit ge='soon', which is not a duration"),
        ({"x": setting(le=-1)}, {"x": Size}, "Sample.x has the limit le=-1, which is not a size"),
        ({"x": setting(ge="1")}, {"x": int}, "Sample.x has the limit ge='1', which is not a number"),
        ({"x": setting(**ODD)}, {"x": str}, "which is not a number"),
        ({"x": setting(default=timedelta(0), gt="0s")}, {"x": timedelta}, "as in 5s or 1h30m, above 0s, and its"),
        ({}, {"x": set[tuple[list[int], int]]}, "cannot be set[tuple[list[int], int]] (a set of what has no hash)"),
        ({}, {"x": set[Changing | None]}, "a set of what has no hash"),
        ({}, {"x": frozenset[Listed]}, "a set of what has no hash"),
        ({}, {"x": Inner | None}, "cannot be Inner | None (a class with settings of its own"),
        ({}, {"x": list[Inner]}, "a class with settings of its own, whose keys and secrets would be lost"),
        ({}, {"x": Holder}, "a class with settings of its own"),
        ({}, {"x": Pretending}, "a class with settings of its own"),
        ({"x": 10**5000}, {"x": int}, "must be a whole number, and its default this int is not"),
        ({"x": setting(aliases="old")}, {"x": int}, "Sample.x has aliases that are one text; write aliases=('old',)"),
        ({"x": _said(minimum=0)}, {"x": int}, "Sample.x has 'minimum', which setting() does not take"),
        ({"x": _said(minimum=0)}, {"x": int}, "max_length, pattern; did you mean 'ge'?"),
        ({"x": _said(Pattern="a")}, {"x": str}, "did you mean 'pattern'?"),
        ({"x": _said(kye="a")}, {"x": str}, "did you mean 'key'?"),
        ({"x": _said(whatever=1)}, {"x": str}, "write one of default, key"),
        ({"validate": _later}, {}, "Sample.validate is async, and is not awaited; write `def validate(self)"),
        ({"valdate": _nothing}, {}, "Sample.valdate is called by nobody, but looks like 'validate'"),
        ({"wait": timedelta(5)}, {}, "Sample.wait has no annotation"),
        ({"token": Secret("hunter2")}, {}, "Sample.token has no annotation, so it is no setting; write `token: Secret"),
        ({"x": setting(default=1)}, {}, "Sample.x has no annotation"),
        (
            {"limit": 5},
            {},
            "Sample.limit has no annotation, so it is no setting; write `limit: int = ...`, or `ClassVar`",
        ),
        ({"folder": Path("/etc")}, {}, "Sample.folder has no annotation"),
        ({"x": dataclasses.field(default=1)}, {"x": int}, "dataclasses.field(); use setting()"),
        ({}, {"_x": int}, "Sample._x is not free"),
        ({}, {"parse": int}, "Sample.parse is not free"),
        ({"__post_init__": print}, {}, "override validate()"),
        ({}, {"depth": int, "Depth": int}, "Sample.Depth has the key 'Depth', as depth has"),
    ],
)
def test_a_wrong_declaration_names_class_attribute_and_remedy(
    body: dict[str, object], annotations: dict[str, object], expected: str
) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        declare(body, **annotations)
    assert "Sample" in str(caught.value)
    assert expected in str(caught.value)


def test_an_inherited_default_is_not_changed_without_annotation() -> None:
    with pytest.raises(PluginDefinitionError, match="depth has no annotation"):
        type("Sample", (WorkerSettings,), {"depth": 5})


@pytest.mark.parametrize(
    "key",
    [
        *["", ".", "..", "a/b", "a?b", "a#b", "a%20b", "a\\b", "a b", "a\nb", "a\x7fb", "a\u00a0b", "a\ud800b"],
        *["id", "Name", "DESCRIPTION", "version", "pluginType", "executablePath", "arguments", "supportedPlatforms"],
        *["Subscription", "metadata", "startupPriority", "autoStart", "executionContext", "requiresMonitoring"],
        *["autoRestart", "mqttRole", "mqttTopics", "status", "Revert", "kepm.heartbeat", "KEPM.x"],
    ],
)
def test_a_key_that_the_agent_could_not_tell_apart_is_refused(key: str) -> None:
    with pytest.raises(PluginDefinitionError, match=r"Sample\.x has the key"):
        declare({"x": setting(default=1, key=key)}, x=int)


def test_reserved_settings_are_for_the_framework() -> None:
    class Knobs(Settings, reserved=True):
        level: str = setting(default="Information", key="kepm.log.level")

    assert Knobs.parse({"kepm.log.level": "Debug"}).level == "Debug"
    with pytest.raises(PluginDefinitionError, match="does not begin with kepm"):
        type("Sample", (Settings,), {"__annotations__": {"x": int}}, reserved=True)


def test_the_manifest_has_the_defaults_but_no_secret_and_nothing_required() -> None:
    class Sample(Settings):
        required: int
        folder: Path = Path("/var")
        mode: Mode = Mode.SLOW
        empty: int | None = None
        tags: list[str] = setting(default=["a"])
        on: bool = setting(default=True, key="is.on")
        password: str = setting(default="hunter2", secret=True)

    assert manifest_defaults(Sample) == {
        "folder": str(Path("/var")),
        "mode": "Slow",
        "tags": '["a"]',
        "is.on": True,
    }


# --- parsing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("text", "", ""),
        ("text", " as it is ", " as it is "),
        ("label", "", None),
        ("label", "null", "null"),
        *[("flag", text, True) for text in ("True", "true", "TRUE", "1", "yes", "Yes", "on", " true ")],
        *[("flag", text, False) for text in ("False", "false", "FALSE", "0", "no", "off", "N")],
        ("maybe", "", None),
        ("maybe", "NULL", None),
        ("whole", "-12", -12),
        ("whole", " 12 ", 12),
        ("whole", "12.0", 12),
        ("whole", "1E+3", 1000),
        ("number", "1E+20", 1e20),
        ("number", "3", 3.0),
        ("size", "2", Rank.LARGE),
        ("mode", "slow", Mode.SLOW),
        ("choice", "b", "B"),
        ("choice", "3", 3),
        ("folder", "/var/lib", Path("/var/lib")),
        ("folders", '["/a"]', [Path("/a")]),
        ("names", '["b", "a"]', ("b", "a")),
        ("weights", '{"a": 1}', {"a": 1.0}),
        ("anything", '{"a": [1, null, {"b": true}]}', {"a": [1, None, {"b": True}]}),
        ("sizes", "[1, null]", [Rank.SMALL, None]),
        ("modes", "null", None),
    ],
)
def test_the_agents_text_means(name: str, text: str, expected: object) -> None:
    value = getattr(EveryKind.parse({name: text}), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("flag", "maybe", "true or false"),
        ("whole", "1.5", "a whole number"),
        ("whole", "1_0", "a whole number"),
        ("whole", str(2**63), "a whole number"),
        ("whole", "9" * 5000, "a whole number"),
        ("number", "NaN", "a number"),
        ("number", "1e999", "a number"),
        ("mode", "medium", "one of fast, Slow, or empty"),
        ("choice", "", "one of a, B, 3"),
        ("folder", "", "a path"),
        ("folder", "a\0b", "a path"),
        ("folder", "\ud800", "a path"),
        ("text", "\ud800", "text"),
        ("folders", "/a", "JSON text of a list[Path]"),
        ("folders", '["a\\u0000b"]', "JSON text of a list[Path]"),
        ("weights", "[]", "JSON text of a dict[str, float]"),
        ("anything", "[" * 100_000, "JSON text of a dict[str, object]"),
        ("anything", '{"a":' * 100_000, "JSON text of a dict[str, object]"),
    ],
)
def test_text_that_breaks_a_rule_is_an_error_with_key_and_rule(name: str, text: str, rule: str) -> None:
    with pytest.raises(SettingsError) as caught:
        EveryKind.parse({name: text})
    assert (caught.value.key, caught.value.rule) == (name, rule)
    assert f"'{name}' must be {rule}, not '" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_all_problems_are_told_at_once_and_no_secret_is() -> None:
    class Sample(WorkerSettings):
        pin: str = setting(secret=True, pattern=r"\d{4}")

    with pytest.raises(SettingsError) as caught:
        Sample.parse({"scan.root": "/", "depth": "99", "pin": "s3cret", "plain": "?"})
    assert str(caught.value) == (
        "Sample: 'depth' must be a whole number, at least 1, at most 10, not '99'; "
        "'token' is not set; it must be text; "
        r"'plain' must be true or false, not '?'; 'pin' must be text, matching \d{4}"
    )
    assert caught.value.key == ""


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda: declare({"x": setting(gt=0, lt=2)}, x=float), "0.5", "2"),
        (lambda: declare({"x": setting(gt=0, lt=2)}, x=float), "1.9", "0"),
        (lambda: declare({"x": setting(min_length=2)}, x=str), "ab", "a"),
        (lambda: declare({"x": setting(max_length=1)}, x=list[int]), "[1]", "[1,2]"),
        (lambda: declare({"x": setting(pattern="a|bc")}, x=str), "bc", "bcd"),
        (lambda: declare({"x": setting(pattern="a+")}, x=str | None), "", "b"),
    ],
)
def test_a_limit_holds(make: Callable[[], type[Settings]], good: str, bad: str) -> None:
    sample = make()
    sample.parse({"x": good})
    with pytest.raises(SettingsError):
        sample.parse({"x": bad})


def test_a_key_is_found_as_written_then_in_any_casing() -> None:
    assert WorkerSettings.parse({"TOKEN": "a", "DEPTH": "1", "depth": "2", "other": "x"}).depth == 2
    assert WorkerSettings.parse({"token": "a", "Scan.Root": "/b", "SCAN.ROOT": "/b"}).root == "/b"
    with pytest.raises(SettingsError, match="'depth' has several values, under DEPTH, Depth"):
        WorkerSettings.parse({"token": "a", "Depth": "1", "DEPTH": "2"})


@PATIENT
@given(
    st.dictionaries(st.sampled_from([item.key for item in fields_of(EveryKind)]), st.text() | st.text("0123e+-.[]{}"))
)
def test_any_text_parses_or_is_a_settings_error(values: dict[str, str]) -> None:
    try:
        parsed = EveryKind.parse(values)
    except SettingsError:
        return
    again = {item.key: str(encode(getattr(parsed, item.name))) for item in fields_of(EveryKind)}
    assert EveryKind.parse(again) == parsed


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(Path)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@PATIENT
@given(
    st.builds(
        EveryKind,
        text=st.text(),
        label=st.none() | st.text(),
        flag=st.booleans(),
        maybe=st.none() | st.booleans(),
        whole=st.integers(-(2**63), 2**63 - 1),
        number=FINITE | st.integers(-1000, 1000),
        size=st.sampled_from(Rank),
        mode=st.none() | st.sampled_from(Mode),
        choice=st.sampled_from(["a", "B", 3]),
        folder=PATHS,
        folders=st.lists(PATHS, max_size=3),
        names=st.lists(st.text(), max_size=3).map(tuple),
        weights=st.dictionaries(st.text(), FINITE, max_size=3),
        anything=st.dictionaries(st.text(), JSON, max_size=3),
        sizes=st.lists(st.none() | st.sampled_from(Rank), max_size=3),
        modes=st.none() | st.dictionaries(st.text(), st.lists(st.sampled_from(Mode), max_size=2), max_size=2),
    )
)
def test_a_value_that_was_put_is_read_back(original: EveryKind) -> None:
    """By whichever spelling the agent keeps it: as .NET and Python print it, or as JSON."""
    sent = {item.key: encode(getattr(original, item.name)) for item in fields_of(EveryKind)}
    assert EveryKind.parse({key: str(value) for key, value in sent.items()}) == original
    as_json = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sent.items()}
    assert EveryKind.parse(as_json) == original


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_frozen_value() -> None:
    one = WorkerSettings(token="x", depth=4)
    assert one == WorkerSettings.parse({"token": "x", "depth": "4"})
    assert hash(one) == hash(WorkerSettings(token="x", depth=4))
    assert one != WorkerSettings(token="y", depth=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.depth = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_snapshot_shares_no_list_with_its_maker() -> None:
    given = [Path("/a")]
    one, two = EveryKind(folders=given), EveryKind()
    given.append(Path("/b"))
    two.folders.append(Path("/c"))
    assert (one.folders, EveryKind().folders) == ([Path("/a")], [])


def test_a_secret_is_masked_in_the_representation() -> None:
    assert repr(WorkerSettings(token="hunter2")) == "WorkerSettings(root='/etc', depth=3, token=***, plain=True)"


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 11},
        {"depth": "4"},
        {"depth": True},
        {"plain": 1},
        {"root": Path("/etc")},
        {"root": "\ud800"},
    ],
)
def test_construction_keeps_the_rules_too(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SettingsError, match=f"'{'scan.root' if name == 'root' else name}' must be"):
        WorkerSettings(token="x", **wrong)
    with pytest.raises(SettingsError):
        replace(WorkerSettings(token="x"), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 1},
        {"mode": "fast"},
        {"choice": "b"},
        {"folder": "/tmp"},
        {"number": float("nan")},
        {"folders": ["/tmp"]},
        {"folders": (Path("/tmp"),)},
        {"anything": {"a": Path("/tmp")}},
        {"anything": {"a": float("inf")}},
        {"anything": {"a": {1, 2}}},
        {"anything": {"a": object()}},
        {"anything": {"a": "\ud800"}},
    ],
)
def test_what_would_not_survive_the_way_to_the_agent_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        EveryKind(**wrong)


class Bounds(Settings):
    low: int = 0
    high: int = 10
    token: str = setting(default="hunter2", secret=True)

    def validate(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not be above high (token {self.token})")
        if self.low == self.high:
            raise SettingsError(f"nothing between, {self.token}", key="low", rule="below high")


def test_a_rule_over_several_fields_is_kept_by_parse_and_construction() -> None:
    with pytest.raises(SettingsError, match=r"Bounds: low must not be above high \(token \*\*\*\)") as caught:
        Bounds.parse({"low": "11"})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(SettingsError, match=r"nothing between, \*\*\*") as caught:
        Bounds(low=10)
    assert (caught.value.key, caught.value.rule) == ("low", "below high")


class Answering(Settings):
    def validate(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return False


def test_a_rule_that_answers_is_refused_as_nobody_looks_at_the_answer() -> None:
    with pytest.raises(PluginDefinitionError, match=r"Answering\.validate returns something.*raise ValueError"):
        Answering()


def test_what_checks_a_part_of_the_rules_may_have_any_name() -> None:
    class Checked(Settings):
        def validate_low(self) -> None:
            raise ValueError("never")

        def check_validity(self) -> None:
            raise ValueError("never")

    Checked()


def test_a_difference_names_attributes_and_keys() -> None:
    old, new = WorkerSettings(token="a"), WorkerSettings(token="b", root="/")
    assert difference(old, old) == frozenset()
    assert difference(old, new) == {"root", "token"}
    assert changed_keys(old, new) == {"scan.root", "token"}
    change = Change(old, new, difference(old, new))
    assert change.names == {"root", "token"}
    assert (change.old.root, change.new.root) == ("/etc", "/")


def test_secrets_are_collected_with_what_is_inside_of_them() -> None:
    class Sample(Settings):
        token: str = setting(secret=True)
        pin: int | None = setting(default=None, secret=True)
        keys: dict[str, list[str]] = setting(default={"a": ["k1", "k2"]}, secret=True)
        root: str = "/etc"

    assert secrets_of(Sample(token="t")) == {"t", '{"a":["k1","k2"]}', "k1", "k2"}
    assert secrets_of(Sample(token="", pin=1234, keys={})) == {"1234", "{}"}
