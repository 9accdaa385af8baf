"""Types of settings: what the agent's text means for each, and what comes back from a round trip."""

import copy
import dataclasses
import enum
import json
import logging
import math
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin.errors import KepmError, SettingsError
from kepm_plugin.message import encode_json
from kepm_plugin.settings import (
    Scalar,
    Secret,
    Settings,
    Size,
    encode,
    fields_of,
    flat,
    leaves_of,
    manifest_defaults,
    secrets_of,
    setting,
)

# A loaded machine is no failure: hypothesis builds its tables of characters at the first use.
PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Port = NewType("Port", int)


class Level(enum.StrEnum):
    LOW = "low"
    HIGH = "Very High"


class Rank(enum.IntEnum):
    FIRST = 1
    SECOND = 2


class Swapped(enum.Enum):
    A = "B"
    B = "c"


class Proxy(msgspec.Struct, rename="camel", frozen=True):
    host: str
    connect_timeout: timedelta = timedelta(seconds=5)
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 8080


@dataclasses.dataclass(frozen=True)
class Account:
    user: str
    password: Secret
    quota: Size | None = None
    home: Path = Path("/home")


class Window(TypedDict):
    opens: time
    days: NotRequired[list[int]]


class Plain(Settings):
    """Types without parts."""

    text: str = ""
    secret: Secret = Secret("")
    maybe_secret: Secret | None = None
    flag: bool = False
    whole: int = 0
    number: float = 0.0
    exact: Decimal = Decimal(0)
    level: Level = Level.LOW
    rank: Rank | None = None
    swapped: Swapped = Swapped.A
    choice: Literal["null", "Null", 3] | None = None
    folder: Path = Path("/")
    maybe_folder: Path | None = None
    identity: UUID = UUID(int=0)
    raw: bytes = b""
    maybe_raw: bytes | None = None
    wait: timedelta = timedelta(0)
    maybe_wait: timedelta | None = None
    size: Size = Size(0)
    maybe_size: Size | None = None
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    day: date = date(2026, 1, 1)
    at: time = time(8, 30)
    port: Port = Port(1)


@dataclasses.dataclass
class Growing:
    steps: list[int] = dataclasses.field(default_factory=list[int])
    pause: timedelta = timedelta(seconds=1)


class Strict(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, tag="strict", tag_field="kind"):
    top_speed: Decimal = Decimal(1)


class Loose(TypedDict, total=False):
    level: Level
    inner: Strict


class Composite(Settings):
    """Types with parts."""

    waits: list[timedelta] = setting(default=[])
    sizes: tuple[Size, ...] = ()
    pair: tuple[int, Level | None] = (0, None)
    ports: set[int] = setting(default=set())
    hosts: frozenset[str] = frozenset()
    quotas: dict[str, Size] = setting(default={})
    ranks: dict[Rank, list[Decimal]] = setting(default={})
    by_day: dict[date, str] = setting(default={})
    flags: dict[bool, bool] = setting(default={})
    secrets: list[Secret] = setting(default=[])
    names: list[str | None] = setting(default=[])
    blobs: list[bytes | None] | None = None
    proxy: Proxy = Proxy("localhost")
    account: Account | None = None
    window: Window | None = None
    proxies: dict[str, Proxy] = setting(default={})
    anything: list[object] = setting(default=[])
    growing: Growing = setting(default=Growing())
    strict: Strict = setting(default=Strict())
    loose: Loose = setting(default=Loose())
    moments: set[datetime] = setting(default=set())
    accounts: tuple[Account, ...] = ()


class Whole(Settings):
    """All types in one snapshot, and one class twice."""

    plain: Plain
    again: Plain = setting(key="second.plain")
    composite: Composite


TEXTS: Final = st.text(max_size=8)
NAIVE: Final = datetime.fromisoformat("2026-01-01T00:00:00")
BETWEEN: Final = (NAIVE.replace(year=2), NAIVE.replace(year=9998))
MOMENTS: Final = st.datetimes(*BETWEEN) | st.datetimes(*BETWEEN, timezones=st.timezones())
INT64: Final = st.integers(-(2**63), 2**63 - 1)
FLOATS: Final = st.floats(allow_nan=False, allow_infinity=False)
DECIMALS: Final = st.decimals(allow_nan=False, allow_infinity=False)
PATHS: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).map(Path)
SIZES: Final = st.integers(0, 2**63 - 1).map(Size) | st.from_regex(r"\A[0-9]{1,3}(KB|MiB|GB|PiB)\Z").map(Size)
DURATIONS: Final = st.timedeltas() | st.integers(-200_000, 200_000).map(lambda n: timedelta(milliseconds=n * 50))
SECRETS: Final = TEXTS.map(Secret)
TIMES: Final = st.times()
PROXIES: Final = st.builds(Proxy, host=TEXTS, connect_timeout=DURATIONS, port=st.integers(1, 65_535))
ACCOUNTS: Final = st.builds(Account, user=TEXTS, password=SECRETS, quota=st.none() | SIZES, home=PATHS)
STRICT: Final = st.builds(Strict, top_speed=DECIMALS)
JSON: Final = st.recursive(
    st.none() | st.booleans() | INT64 | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def few(values: st.SearchStrategy[Any], keys: st.SearchStrategy[Any] = TEXTS) -> st.SearchStrategy[dict[Any, Any]]:
    return st.dictionaries(keys, values, max_size=2)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=3)


PLAIN: Final[dict[str, st.SearchStrategy[Any]]] = {
    "text": TEXTS,
    "secret": SECRETS,
    "maybe_secret": st.none() | SECRETS,
    "flag": st.booleans(),
    "whole": INT64,
    "number": FLOATS,
    "exact": DECIMALS,
    "level": st.sampled_from(Level),
    "rank": st.none() | st.sampled_from(Rank),
    "swapped": st.sampled_from(Swapped),
    "choice": st.sampled_from([None, "null", "Null", 3]),
    "folder": PATHS,
    "maybe_folder": st.none() | PATHS | st.just(Path("null")),
    "identity": st.uuids(),
    "raw": st.binary(max_size=8),
    "maybe_raw": st.none() | st.binary(max_size=8),
    "wait": DURATIONS,
    "maybe_wait": st.none() | DURATIONS,
    "size": SIZES,
    "maybe_size": st.none() | SIZES,
    "moment": MOMENTS,
    "day": st.dates(),
    "at": TIMES,
    "port": INT64,
}
COMPOSITE: Final[dict[str, st.SearchStrategy[Any]]] = {
    "waits": some(DURATIONS),
    "sizes": some(SIZES).map(tuple),
    "pair": st.tuples(INT64, st.none() | st.sampled_from(Level)),
    "ports": some(INT64).map(set),
    "hosts": some(TEXTS).map(frozenset),
    "quotas": few(SIZES),
    "ranks": few(some(DECIMALS), st.sampled_from(Rank)),
    "by_day": few(TEXTS, st.dates()),
    "flags": few(st.booleans(), st.booleans()),
    "secrets": some(SECRETS),
    "names": some(st.none() | TEXTS),
    "blobs": st.none() | some(st.none() | st.binary(max_size=8)),
    "proxy": PROXIES,
    "account": st.none() | ACCOUNTS,
    "window": st.none() | st.fixed_dictionaries({"opens": TIMES}, optional={"days": some(INT64)}),
    "proxies": few(PROXIES),
    "anything": some(JSON),
    "growing": st.builds(Growing, steps=some(INT64), pause=DURATIONS),
    "strict": STRICT,
    "loose": st.fixed_dictionaries({}, optional={"level": st.sampled_from(Level), "inner": STRICT}),
    "moments": some(MOMENTS.map(lambda moment: moment.replace(fold=0))).map(set),
    "accounts": some(ACCOUNTS).map(tuple),
}
EVERY: Final[list[tuple[type[Settings], dict[str, st.SearchStrategy[Any]]]]] = [(Plain, PLAIN), (Composite, COMPOSITE)]


def outcome(kind: type[Settings], values: dict[str, str]) -> Settings | SettingsError:
    try:
        return kind.parse(values)
    except SettingsError as error:
        return error


def spelt(value: Scalar) -> tuple[str, str]:
    """Return what the agent may make of a value: as .NET and Python print it, and as JSON."""
    return str(value), value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize(("kind", "strategies"), EVERY)
def test_every_type_has_values_to_try(kind: type[Settings], strategies: dict[str, object]) -> None:
    assert [item.name for item in fields_of(kind)] == list(strategies)


NAMES: Final = [(kind, item.name) for kind, _ in EVERY for item in fields_of(kind)]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - its own


def snapshots(kind: type[Settings], strategies: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Settings]:
    return st.builds(kind, **strategies)


@examples(PATIENT, max_examples=40)
@given(
    st.builds(Whole, plain=snapshots(Plain, PLAIN), again=st.just(Plain()), composite=snapshots(Composite, COMPOSITE)),
    st.builds(Whole, plain=st.just(Plain()), again=snapshots(Plain, PLAIN), composite=st.just(Composite())),
)
def test_a_snapshot_that_was_put_is_read_back(one: Whole, two: Whole) -> None:
    for original in (one, two):
        sent = flat(original)
        for spelling in (0, 1):
            again = Whole.parse({key: spelt(value)[spelling] for key, value in sent.items()})
            assert again == original
            assert flat(again) == sent
        assert copy.deepcopy(original) == pickled(original) == replace(original) == original


@pytest.mark.parametrize(("kind", "name"), NAMES)
@examples(PATIENT, max_examples=20)
@given(data=st.data())
def test_a_value_of_each_type_is_read_back(kind: type[Settings], name: str, data: st.DataObject) -> None:
    value = data.draw((PLAIN | COMPOSITE)[name])
    original = replace(kind(), **{name: value})
    for text in spelt(flat(original)[name]):
        assert kind.parse({name: text}) == original


def clock(value: timedelta) -> str:
    """Return a duration as .NET prints a TimeSpan."""
    total = abs(value)
    days, rest = f"{total.days}." if total.days else "", total.seconds
    text = f"{days}{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    fraction = f".{total.microseconds:06}0" if total.microseconds else ""
    return ("-" if value < timedelta(0) else "") + text + fraction


def moment_text(value: datetime) -> str:
    """Return a date and time as .NET prints it with the format "o"."""
    at = value.replace(tzinfo=None).isoformat(timespec="microseconds") + "0"
    return at if value.tzinfo is None else at + "Z"


AS_NET: Final[dict[str, list[Callable[[Any], str]]]] = {
    "flag": [str],  # True, False
    "whole": [str, "{:+d}".format, "{:020d}".format],
    "number": [lambda value: repr(value).replace("e", "E"), "{:+.17E}".format],
    "exact": [str, "{:+}".format],
    "level": [lambda value: value.name, lambda value: value.value.upper()],
    "identity": [str, "{{{}}}".format, "({})".format, lambda value: value.hex.upper(), lambda value: value.urn],
    "wait": [clock],
    "moment": [moment_text],
    "day": [date.isoformat],
    "at": [lambda value: value.isoformat(timespec="microseconds") + "0"],
    "size": [lambda value: str(int(value)), lambda value: f"{int(value)} bytes"],
}


@pytest.mark.parametrize("name", AS_NET)
@examples(PATIENT, max_examples=25)
@given(data=st.data())
def test_a_scalar_as_dot_net_prints_it_is_read(name: str, data: st.DataObject) -> None:
    original = Plain(**{name: data.draw(PLAIN[name])})
    for printed in AS_NET[name]:
        assert Plain.parse({name: printed(getattr(original, name))}) == original


ODD: Final = st.sampled_from(
    [
        *(
            "null",
            "[]",
            "{}",
            "[null]",
            '{"a":1}',
            "1e999",
            "NaN",
            "-1",
            "5s",
            "PT5M",
            "1.02:03:04.5",
            "10MB",
            "\ud800",
        ),
        *("9" * 5000, "1e99999999999999999999", "[" * 5000, '{"host":"a","port":0}', "2026-01-01T00:00:00+00:00", "\0"),
        *(
            "\ud800",
            '{"user":"u","password":1}',
            '[["a"]]',
            '{"opens":"25:00"}',
            "0001-01-01T00:00+23:59",
            "9999999999 weeks",
        ),
        *("\u0661s", '{"\ud800":1}', '["\ud800"]', '"', '{"a":"5s"}', "[1,1]", "[0,null]"),
    ]
)
ANY_TEXT: Final = st.text(max_size=12) | ODD | st.text('0123456789.:+-eEPTdhmsKiB[]{}" ,', max_size=12)


PART: Final = st.sampled_from(("", "", "", ".0", ":1", ".a", ".a.0", ".user", ":password", ".kind", ".days.0", ".00"))


@pytest.mark.parametrize(("kind", "name"), NAMES)
@examples(PATIENT, max_examples=25)
@given(texts=st.dictionaries(PART, ANY_TEXT, max_size=3))
def test_any_text_parses_or_is_an_error_with_key_and_rule(
    kind: type[Settings], name: str, texts: dict[str, str]
) -> None:
    parsed = outcome(kind, {name + part: text for part, text in texts.items()})
    if isinstance(parsed, Settings):
        assert kind.parse({name: spelt(flat(parsed)[name])[0]}) == parsed
        return
    (leaf,) = (leaf for leaf in leaves_of(kind) if leaf.key == name)
    assert (parsed.key, parsed.rule) == (name, leaf.rule)
    told = str(parsed)
    assert f"{name!r} must be {leaf.rule}" in told or f"{name!r} has several values, under {name}" in told
    assert not leaf.secret or told.endswith(leaf.rule) or "several values" in told


# --- what a text means ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("5s", 5), ("10 min", 600), ("1h30m", 5400), ("250ms", 0.25), ("2 days", 172_800), ("1 h 30 m", 5400)],
        *[("5", 5), ("0.5", 0.5), (" 5 S ", 5), ("1E+2", 100), ("2.5e-1", 0.25), (".5h", 1800), ("1.5h", 5400)],
        *[("PT5M", 300), ("P1DT2H3M4.5S", 93_784.5), ("p2w", 1_209_600), ("-PT1S", -1), ("PT0.5H", 1800)],
        *[("00:05:00", 300), ("1.02:03:04.5", 93_784.5), ("1:02:03:04.5", 93_784.5), ("-00:00:01", -1)],
        *[("00:00:00.1234567", 0.123457), ("1w", 604_800), ("7us", 7e-6), ("7 \xb5s", 7e-6), ("-1h30m", -5400)],
        *[("+5s", 5), ("1 minute 5 seconds", 65), ("0.0000004s", 0), ("0.0000005s", 1e-6)],
    ],
)
def test_a_duration_means(text: str, seconds: float) -> None:
    assert Plain.parse({"wait": text}).wait == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "5 apples", "5s5s", "1h1hour", "5s garbage", "P", "PT", "P1DT", "P1Y", "P1M", "00:05", "24:00:00"),
        *(
            "--5s",
            "1_0s",
            "5 5s",
            "1e999",
            "\u0661s",
            "1" * 200 + "us",
            "99999999999999d",
            "null",
            "1h30",
            "nan",
            "inf",
        ),
        *("00:60:00", "5s,", "1:2", "-", "+"),
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="'wait' must be a duration as in 5s or 1h30m, not "):
        Plain.parse({"wait": text})


@pytest.mark.parametrize("text", ["P1Y", "P1M", "-P1Y2M3DT1H", "1 month", "2years", "1mo", "1h 3 y"])
def test_a_duration_of_months_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(SettingsError, match=rf"not '{text}' \(years and months have no fixed length; count days\)$"):
        Plain.parse({"wait": text})


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("waits", '["5s", "P1M"]', "item 1 must be a duration as in 5s or 1h30m (years and months have no fixed"),
        ("waits", '["5s",]', "JSON is malformed: trailing comma in array (byte 6)"),
        ("pair", "[1]", "1 items instead of 2"),
        ("ports", "[1, 1]", "an item comes twice"),
        ("quotas", '{"a": "1 apple"}', "what 'a' has must be a size as in 64KiB or 10MB"),
        ("ranks", '{"1": [], "first": []}', "a key comes twice"),
        ("ranks", '{"9": []}', "the key '9' must be one of 1, 2"),
        ("proxy", '{"host": "a", "port": 0}', "Expected `int` >= 1 - at `$.port`"),
        ("proxy", '{"port": 1}', "Object missing required field `host`"),
        ("strict", '{"top_speed": 1}', "Object contains unknown field `top_speed`"),
        ("strict", '{"kind": "other"}', "Invalid value 'other' - at `$.kind`"),
        ("loose", '{"inner": {"top-speed": "fast"}}', "inner must be JSON text of a Strict (top-speed must be a deci"),
        ("anything", "[" * 66 + "]" * 66, "item 0 must be JSON (more than 64 levels of lists and objects)"),
    ],
)
def test_an_error_says_which_part_is_wrong_and_why(name: str, text: str, reason: str) -> None:
    error = outcome(Composite, {name: text})
    assert isinstance(error, SettingsError)
    assert f" ({reason}" in str(error)
    assert len(str(error)) < 500


def test_an_error_says_that_the_numbers_of_items_have_gaps() -> None:
    for texts in ({"waits.0": "1", "waits.2": "3"}, {"waits:1": "1"}):
        with pytest.raises(SettingsError, match="the numbers of the items have gaps, or do not begin with 0"):
            Composite.parse(texts)


def nested_lists(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


def test_what_is_too_deep_or_too_long_to_print_is_a_settings_error() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    for wrong in (nested_lists(100_000), nested_lists(66), cycle):
        with pytest.raises(SettingsError, match="more than 64 levels of lists and objects"):
            Composite(anything=wrong)
    with pytest.raises(SettingsError, match=r"'whole' must be a whole number, not this int$"):
        Plain(whole=10**5000)
    deep = Composite(anything=nested_lists(65))
    assert Composite.parse({"anything": str(flat(deep)["anything"])}) == copy.deepcopy(deep) == deep


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[
            ("identity", text)
            for text in ("{0" + "0" * 31, "0x" + "0" * 30, "0" * 29 + "_00", "\u0660" * 32, "0-" * 32)
        ],
        *[
            ("whole", text)
            for text in ("1_0", "0x10", "1.5", "1e19", "1e999999999", "9" * 5000, "NaN", "1,000", "\u0661")
        ],
        *[("number", text) for text in ("1_0", "NaN", "Infinity", "-inf", "1e309", "1,5", "0x1p3", "9" * 5000)],
        *[("exact", text) for text in ("NaN", "sNaN", "Infinity", "1_0", "1e99999999999999999999")],
        *[("flag", text) for text in ("", "t", "2", "1.0", "enabled", "\u0130")],
    ],
)
def test_a_scalar_that_no_one_means_is_refused(name: str, text: str) -> None:
    error = outcome(Plain, {name: text})
    assert isinstance(error, SettingsError)
    assert error.key == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=5), "5s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(seconds=90.5), "1m30.5s"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(days=1), "1d"),
        (timedelta(days=-1), "-1d"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(microseconds=1500), "1500us"),
        (timedelta(seconds=-0.25), "-250ms"),
        (timedelta.max, "999999999d23h59m59.999999s"),
        (Size(0), "0B"),
        (Size(1023), "1023B"),
        (Size(1024), "1KiB"),
        (Size(64 * 2**20), "64MiB"),
        (Size(10_000_000), "10MB"),
        (Size(1_024_000), "1000KiB"),
        (Size(2**60), "1EiB"),
        (Decimal("1.50"), "1.5"),
        (Decimal("1E+2"), "100"),
        (Decimal("1E-30"), "1E-30"),
        (Decimal("-0.0"), "0"),
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T02:00:00+02:00"),
        (time(8, 30), "08:30:00"),
        (b"\xff", "/w=="),
        (Level.HIGH, "Very High"),
        ({"b": 1, "a": Size(1)}, '{"a":"1B","b":1}'),
        ({3, 1, 2}, "[1,2,3]"),
    ],
)
def test_a_value_is_written_in_its_most_readable_form(value: object, text: str) -> None:
    assert encode(value) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("10MB", 10**7), ("64 KiB", 65_536), ("1.5 GB", 1_500_000_000), ("5", 5), ("5 bytes", 5), ("1b", 1)],
        *[("1kb", 1000), ("1kib", 1024), ("1 TiB", 2**40), ("2EB", 2 * 10**18), ("1e3", 1000), ("1E+3 KB", 10**6)],
        *[("0.5KiB", 512), (" 1 PB ", 10**15)],
    ],
)
def test_a_size_means(text: str, size: int) -> None:
    assert Plain.parse({"size": text}).size == size


@pytest.mark.parametrize(
    "text", ["", "10M", "1.5", "0.1KiB", "-1", "8EiB", "MB", "1_0", "1 MB 1", "1e99", "0x10", "\u0661"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="'size' must be a size as in 64KiB or 10MB, not "):
        Plain.parse({"size": text})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("level", "very high", Level.HIGH),
        ("level", "HIGH", Level.HIGH),
        ("level", "high", Level.HIGH),
        ("rank", "2", Rank.SECOND),
        ("rank", "second", Rank.SECOND),
        ("swapped", "B", Swapped.A),  # a value counts before a name
        ("swapped", "b", Swapped.A),
        ("swapped", "a", Swapped.A),
        ("choice", "null", "null"),
        ("choice", "NULL", None),
        ("exact", " 0.10 ", Decimal("0.1")),
        ("whole", "+5", 5),
        ("whole", "007", 7),
        ("whole", "1E+2", 100),
        ("whole", "-9223372036854775808", -(2**63)),
        ("number", ".5", 0.5),
        ("number", "+5.", 5.0),
        ("identity", "{00000000-0000-0000-0000-00000000000A}", UUID(int=10)),
        ("moment", "2026-01-01T02:00:00.1234567+02:00", datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("moment", "2026-01-01T00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("moment", "2026-01-01 00:00", NAIVE),
        ("day", " 2026-02-28 ", date(2026, 2, 28)),
        ("at", "08:30", time(8, 30)),
        ("raw", "/w==", b"\xff"),
    ],
)
def test_a_text_means(name: str, text: str, expected: object) -> None:
    value = getattr(Plain.parse({name: text}), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("waits", '["5s", 60, "PT1H", 0.5]', [timedelta(seconds=s) for s in (5, 60, 3600, 0.5)]),
        ("sizes", '["1KiB", 10]', (Size(1024), Size(10))),
        ("growing", "{}", Growing()),
        ("strict", '{"top-speed": 12345678901234567890.123456789}', Strict(Decimal("12345678901234567890.123456789"))),
        ("anything", "[0.1, 1e2]", [0.1, 100.0]),
        ("pair", '["7", "LOW"]', (7, Level.LOW)),
        ("ports", '[1, "2"]', {1, 2}),
        ("ranks", '{"2": [1.5, "0.10"]}', {Rank.SECOND: [Decimal("1.5"), Decimal("0.1")]}),
        ("flags", '{"True": "off"}', {True: False}),
        ("proxy", '{"host": "a", "connectTimeout": "1m"}', Proxy("a", timedelta(minutes=1))),
        ("account", '{"user": "u", "password": "p", "quota": "1MB"}', Account("u", Secret("p"), Size(10**6))),
        ("window", '{"opens": "08:00"}', {"opens": time(8)}),
        ("proxies", '{"a": {"host": "b"}}', {"a": Proxy("b")}),
    ],
)
def test_json_text_means(name: str, text: str, expected: object) -> None:
    value = getattr(Composite.parse({name: text}), name)
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pair", "[1]"),
        ("ports", "[1, 1]"),
        ("ports", "[true]"),
        ("names", "[1]"),
        ("ranks", '{"1": [], "first": []}'),
        ("proxy", '{"host": "a", "port": 0}'),
        ("proxy", '{"port": 1}'),
        ("proxy", "[]"),
        ("window", "{}"),
    ],
)
def test_json_text_that_does_not_fit_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"'{name}' must be JSON text of a "):
        Composite.parse({name: text})


@pytest.mark.parametrize(
    "wrong",
    [
        {"wait": 5},
        {"wait": "5s"},
        {"size": "5"},
        {"size": -1},
        {"size": True},
        {"exact": 1},
        {"exact": Decimal("NaN")},
        {"moment": date(2026, 1, 1)},
        {"day": NAIVE},
        {"at": time(8, tzinfo=UTC)},
        {"moment": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))},
        {"identity": str(UUID(int=0))},
        {"raw": "/w=="},
        {"secret": b"hunter2"},
        {"secret": "\ud800hunter2"},
        {"rank": 1},
    ],
)
def test_construction_takes_values_of_the_type_only(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        Plain(**wrong)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pair": (1,)},
        {"ports": [1]},
        {"ports": frozenset({1})},
        {"proxy": Proxy("a", port=0)},
        {"proxy": {"host": "a"}},
        {"account": Account(5, Secret("p"))},  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        {"window": {}},
        {"window": {"opens": time(8), "other": 1}},
        {"quotas": {1: Size(1)}},
        {"waits": ["5s"]},
        {"anything": [{1: 2}]},
    ],
)
def test_construction_takes_parts_of_the_type_only(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Composite(**wrong)


def test_an_int_is_a_size_and_a_str_a_secret() -> None:
    made = Plain(size=1024, secret="s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (type(made.size), type(made.secret)) == (Size, Secret)


def test_a_moment_with_a_zone_is_in_utc_and_one_without_stays_so() -> None:
    there = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert Plain(moment=there).moment.isoformat() == "2026-01-01T00:00:00+00:00"
    assert Plain(moment=NAIVE.replace(fold=1)).moment.isoformat() == "2026-01-01T00:00:00"


class Changing(msgspec.Struct):
    one: int

    def __post_init__(self) -> None:
        self.one = abs(self.one)


def test_an_object_that_does_not_keep_what_it_was_given_is_refused() -> None:
    class Sample(Settings):
        x: Changing = Changing(1)

    changed = Changing(1)
    changed.one = -1
    with pytest.raises(SettingsError):
        Sample(x=changed)
    assert Sample.parse({"x": '{"one": -2}'}).x.one == 2


# --- limits -----------------------------------------------------------------------------------------------------------


class Limited(Settings):
    wait: timedelta = setting(default=timedelta(seconds=5), ge="1s", le=timedelta(minutes=1))
    size: Size = setting(default=Size("1MiB"), gt="1 KiB", lt=2**30)
    exact: Decimal = setting(default=Decimal("0.1"), ge=0.1, le="0.5")
    since: datetime = setting(default=datetime(2026, 1, 1, tzinfo=UTC), ge="2026-01-01T00:00:00Z")
    day: date | None = setting(default=None, ge=date(2026, 1, 1))
    token: Secret = setting(default=Secret("abcd"), min_length=4, pattern="[a-z]+")
    blob: bytes = setting(default=b"", max_length=2)
    retries: Annotated[int, msgspec.Meta(multiple_of=2)] = 2
    names: list[Annotated[str, msgspec.Meta(max_length=3)]] | None = None


@pytest.mark.parametrize(
    ("key", "good", "bad", "rule"),
    [
        ("wait", "1s", "999ms", "a duration as in 5s or 1h30m, at least 1s, at most 1m"),
        ("wait", "1m", "61", "a duration as in 5s or 1h30m, at least 1s, at most 1m"),
        ("size", "1025", "1KiB", "a size as in 64KiB or 10MB, above 1KiB, below 1GiB"),
        ("size", "1GB", "1GiB", "a size as in 64KiB or 10MB, above 1KiB, below 1GiB"),
        ("exact", "0.10", "0.09", "a decimal number, at least 0.1, at most 0.5"),
        (
            "since",
            "2026-01-01T00:00Z",
            "2025-12-31T23:59Z",
            "a date and time (ISO 8601), at least 2026-01-01T00:00:00+00:00",
        ),
        (
            "since",
            "2026-02-01T00:00Z",
            "2026-02-01T00:00",
            "a date and time (ISO 8601), at least 2026-01-01T00:00:00+00:00",
        ),
        ("day", "", "2025-12-31", "a date as in 2026-01-31, at least 2026-01-01, or empty"),
        ("token", "hunter", "hun", "text, of a length of at least 4, matching [a-z]+"),
        ("token", "hunter", "HUNTER", "text, of a length of at least 4, matching [a-z]+"),
        ("blob", "/w==", "AAAA", "base64 text, of a length of at most 2"),
        ("retries", "4", "3", "a whole number, within the limits of its annotation"),
        ("names", '["abc"]', '["abcd"]', None),
    ],
)
def test_a_limit_holds_and_is_told_in_the_units_of_the_type(key: str, good: str, bad: str, rule: str | None) -> None:
    Limited.parse({key: good})
    with pytest.raises(SettingsError) as caught:
        Limited.parse({key: bad})
    assert caught.value.key == key
    assert rule is None or caught.value.rule == rule


def test_defaults_are_in_the_manifest_with_units_and_without_secrets() -> None:
    assert manifest_defaults(Limited) == {
        "wait": "5s",
        "size": "1MiB",
        "exact": "0.1",
        "since": "2026-01-01T00:00:00+00:00",
        "blob": "",
        "retries": 2,
    }


# --- secrets ----------------------------------------------------------------------------------------------------------


class Secretive(Settings):
    token: Secret = Secret("tok-1")
    tokens: list[Secret] = setting(default=[Secret("tok-2")])
    account: Account = Account("alice", Secret("tok-3"))
    whole: Account = setting(default=Account("bob", Secret("tok-4")), secret=True)
    codes: dict[str, int] = setting(default={"door": 112233}, secret=True)
    pause: timedelta = setting(default=timedelta(seconds=97), secret=True)
    plain: str = "seen"


def test_a_secret_annotation_makes_a_setting_secret() -> None:
    assert [item.name for item in fields_of(Secretive) if not item.secret] == ["plain"]
    assert manifest_defaults(Secretive) == {"plain": "seen"}
    shown = repr(Secretive())
    assert shown.count("***") == 6
    assert not any(text in shown for text in ("tok-", "alice", "bob", "112233", "97", "37"))


def test_what_stands_beside_a_secret_is_masked_only_where_all_of_it_is_one() -> None:
    assert secrets_of(Secretive()) == {
        *("tok-1", '["tok-2"]', "tok-2", "tok-3", "tok-4", "bob", "/home", "112233", '{"door":112233}', "1m37s"),
        '{"user":"alice","password":"tok-3","quota":null,"home":"/home"}',
        '{"user":"bob","password":"tok-4","quota":null,"home":"/home"}',
    }


@pytest.mark.parametrize("key", [item.key for item in fields_of(Secretive) if item.secret])
@examples(PATIENT, max_examples=30)
@given(noise=st.text(max_size=5))
def test_a_secret_is_in_no_error(key: str, noise: str) -> None:
    for text in ("\ud800hunter2" + noise, f'{{"user": 1, "password": "hunter2{noise}"', f'[{{"hunter2": {noise}'):
        values = {key: text, f"{key}.0": "hunter2", f"{key}.user": "hunter2"}
        error = outcome(Secretive, values)
        if isinstance(error, Settings):
            assert key == "token"
            assert "\ud800" not in text + noise
            continue
        assert "hunter2" not in str(error) + error.rule
        assert error.key == key
        assert error.__suppress_context__


def test_a_snapshot_shares_nothing_that_changes_with_its_maker() -> None:
    account, given_ports = Account("u", Secret("p")), {1}
    one, two = Composite(ports=given_ports, account=account), Composite()
    given_ports.add(2)
    two.ports.add(3)
    assert (one.ports, Composite().ports) == ({1}, set())
    assert one.account is not account


def values_of(kind: type[Settings], texts: Iterable[tuple[str, str]], get: Callable[[Any], object]) -> list[object]:
    return [get(kind.parse({key: text})) for key, text in texts]


def test_floats_and_decimals_stay_what_they_are() -> None:
    assert values_of(Plain, [("number", "1E+20"), ("number", "3")], lambda s: s.number) == [1e20, 3.0]
    assert math.copysign(1, Plain.parse({"number": "-0.0"}).number) == -1


# --- what carries a secret, and must not tell it ----------------------------------------------------------------------


TELLING: Final[dict[str, Callable[[Any], str]]] = {
    "repr": repr,
    "str": str,
    "format": "{0} {0!r:>20}".format,
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  what libraries do
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s:>9}",
    "keys and items": lambda secret: repr({secret: [secret]}),
    "snapshot": lambda secret: repr(Plain(secret=secret)),
    "asdict": lambda secret: repr(dataclasses.asdict(Plain(secret=secret))),
    "dataclass": lambda secret: repr(Account("u", secret)),
    "logging": lambda secret: logging.LogRecord("", 0, "", 0, "%s %r", (secret, secret), None).getMessage(),
    "console": lambda secret: str(
        structlog.dev.ConsoleRenderer(colors=False)(None, "info", {"event": "", "x": secret})
    ),
    "json log": lambda secret: str(structlog.processors.JSONRenderer()(None, "info", {"x": secret})),
    "key-value log": lambda secret: structlog.processors.KeyValueRenderer()(None, "info", {"x": secret}),
}


@pytest.mark.parametrize("how", TELLING)
def test_a_secret_is_masked_wherever_it_is_printed(how: str) -> None:
    told = TELLING[how](Secret("hunter2"))
    assert "***" in told
    assert "hunter2" not in told


CARRYING: Final[dict[str, Callable[[Any], object]]] = {
    "json": json.dumps,
    "msgspec json": msgspec.json.encode,
    "msgspec msgpack": msgspec.msgpack.encode,
    "msgspec to_builtins": msgspec.to_builtins,
    "msgspec dataclass": lambda secret: msgspec.json.encode(Account("u", secret)),
    "msgspec snapshot": lambda secret: msgspec.json.encode(Plain(secret=secret)),
    "payload": lambda secret: encode_json({"token": [secret]}),
    "bytes": bytes,
    "list": list,
    "join": lambda secret: ", ".join([secret]),
    "plus": lambda secret: "a" + secret,
    "in": lambda secret: "h" in secret,
    "index": lambda secret: secret[0],
    "order": lambda secret: secret < "a",
}


@pytest.mark.parametrize("how", CARRYING)
def test_a_secret_is_in_no_payload_unless_it_is_revealed(how: str) -> None:
    secret = Secret("hunter2")
    with pytest.raises((TypeError, KepmError)) as caught:
        CARRYING[how](secret)
    assert "hunter2" not in "".join(map(str, (caught.value, caught.value.__cause__, caught.value.__context__)))


def test_a_secret_is_a_value() -> None:
    one = Secret("a")
    assert one == Secret("a") == copy.deepcopy(one) == pickled(one)
    assert len({one, Secret("a"), Secret("b")}) == 2
    assert one != "a"
    assert (len(one), bool(Secret(""))) == (1, False)


class Complaining(Settings):
    token: Secret = Secret("")
    how: Literal["plain", "repr", "rule", "dict"] = "plain"

    def validate(self) -> None:
        text = self.token.reveal()
        match text and self.how:
            case "plain":
                raise ValueError(f"not {text}")
            case "repr":
                raise ValueError(f"not {text!r}")
            case "rule":
                raise SettingsError(f"not {text}", key="token", rule=f"other than {text}")
            case "dict":
                raise ValueError({"text": text})
            case _:
                pass


@pytest.mark.parametrize("how", ["plain", "repr", "rule", "dict"])
@pytest.mark.parametrize(
    "token",
    ["hunter2", "hunter2\nhunter3", "hunter'\"2\t\\hunter3", "hunter2\xfc\0"],
    ids=["plain", "lines", "quotes", "odd"],
)
def test_a_secret_in_the_complaint_of_validate_is_masked(how: str, token: str) -> None:
    error = outcome(Complaining, {"token": token, "how": how})
    assert isinstance(error, SettingsError)
    told = f"{error} {error.rule} {error.__cause__}"
    assert "***" in told
    assert "hunter" not in told
    assert error.__suppress_context__


def test_a_line_of_a_secret_is_masked_where_it_stands_alone() -> None:
    class Keyed(Settings):
        token: Secret = Secret("")

        def validate(self) -> None:
            if self.token:
                raise ValueError(f"bad line {self.token.reveal().splitlines()[1]}")

    with pytest.raises(SettingsError, match=r"bad line \*\*\*$"):
        Keyed(token=Secret("-----\nhunter2\n}"))
