"""Logs: whatever is logged, by whichever library, is one bounded record without secrets; and nobody waits or fails."""

import enum
import io
import json
import logging
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kepm_plugin.contract import ASSUMED, LOG_LEVELS, Contract
from kepm_plugin.errors import SettingsError
from kepm_plugin.logs import TRANSPORT, LogControl, LogPipe, logging_to
from kepm_plugin.records import LEVELS, MAX_RECORD, Redactor

NOON = 1_767_268_800.125
Call: TypeAlias = Callable[[Any], object]
EARLY_BOUND = structlog.get_logger("early").bind(part="bound")
EARLY = structlog.get_logger("early")
STDLIB = logging.getLogger("library.part")
READ = pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass
class Taken:
    """What reached the pipe, and the handles to change what does."""

    pipe: LogPipe
    control: LogControl
    people: TextIO
    now: list[float] = field(default_factory=lambda: [NOON])

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while records := self.pipe.take(100):
            assert all(len(record) <= MAX_RECORD for record in records)
            found += map(json.loads, records)
        return found

    def only(self) -> dict[str, Any]:
        (record,) = self.records()
        return record


@contextmanager
def taken(
    *,
    secrets: Callable[[], Collection[str]] = frozenset[str],
    level: str = "Information",
    contract: Contract = ASSUMED,
    people: TextIO | None = None,
    read: bool = True,
) -> Generator[Taken]:
    """Take logs; where no person is to `read` them, records of flat events are made when they are asked for."""
    pipe, now, people = LogPipe(), [NOON], io.StringIO() if people is None else people
    with logging_to(
        pipe, source="Sample", level=level, contract=contract, secrets=secrets, fallback=people, clock=lambda: now[0]
    ) as control:
        (ours,) = (
            handler
            for handler in logging.getLogger().handlers
            if type(handler).__module__.startswith("kepm_plugin.logs.")
        )
        with pytest.MonkeyPatch.context() as patch:
            # Pytest's handlers raise what a broken __str__ raises.
            patch.setattr(logging.getLogger(), "handlers", [ours])
            control.fallback(read)
            yield Taken(pipe, control, people, now)


def lines_of(logs: Taken) -> list[str]:
    """What people got; all of it only after the end of the context."""
    assert isinstance(logs.people, io.StringIO)
    return logs.people.getvalue().splitlines()


# --- the pipe ---------------------------------------------------------------------------------------------------------


def told(pipe: LogPipe, limit: int = 100) -> list[str]:
    return [record.decode() for record in pipe.take(limit)]


def test_records_come_out_in_order_and_no_more_than_asked_for() -> None:
    pipe = LogPipe()
    for record in (b"1", b"2", b"3"):
        pipe.put(record)
    assert (told(pipe, 2), told(pipe, 2), told(pipe, 2)) == (["1", "2"], ["3"], [])


def test_a_full_pipe_drops_the_oldest_and_says_so_once() -> None:
    pipe = LogPipe(records=2)
    for record in (b"1", b"2", b"3", b"4"):
        pipe.put(record)
    assert pipe.dropped == 2
    assert told(pipe, 2) == ['{"message":"2 records dropped"}', "3"]
    assert told(pipe) == ["4"]
    pipe.put(b"5")
    assert told(pipe) == ["5"]


def test_a_pipe_is_bounded_by_bytes_too() -> None:
    pipe = LogPipe(size=10, notice=lambda dropped: b"lost %d" % dropped)
    pipe.put(b"123456")
    pipe.put(b"1234")
    assert pipe.dropped == 0
    pipe.put(b"1")
    assert told(pipe) == ["lost 1", "1234", "1"]
    pipe.put(b"x" * 11)
    assert told(pipe) == ["lost 1"]


def test_a_notice_that_cannot_be_made_is_replaced() -> None:
    pipe = LogPipe(notice=lambda dropped: b"%d" % (dropped // 0))
    pipe.lose()
    assert told(pipe) == ['{"message":"1 records dropped"}']


def test_who_takes_is_woken_when_the_pipe_turns_non_empty() -> None:
    pipe, woken = LogPipe(), list[str]()
    pipe.put(b"1")
    pipe.wake(lambda: woken.append("wake"))
    assert woken == ["wake"]  # it was not empty
    pipe.put(b"2")
    assert (told(pipe), woken) == (["1", "2"], ["wake"])
    pipe.put(b"3")
    assert woken == ["wake", "wake"]
    assert told(pipe) == ["3"]
    pipe.lose()
    assert woken == ["wake"] * 3
    pipe.wake(None)
    assert told(pipe) == ['{"message":"1 records dropped"}']
    pipe.put(b"4")
    assert woken == ["wake"] * 3


def test_a_waker_that_fails_does_no_harm() -> None:
    def closed_loop() -> None:
        raise RuntimeError("Event loop is closed")

    pipe = LogPipe()
    pipe.wake(closed_loop)
    pipe.put(b"1")
    assert told(pipe) == ["1"]


def test_a_record_that_arrives_while_one_is_taken_is_neither_lost_nor_waited_for() -> None:
    """As from a signal handler or a destructor, which run anywhere, also while the pipe's lock is held."""
    pipe, woken = LogPipe(records=1), list[int]()

    def interrupted(dropped: int) -> bytes:
        pipe.put(b"from within")
        return b"lost %d" % dropped

    pipe.notice = interrupted
    pipe.put(b"1")
    pipe.put(b"2")
    pipe.wake(lambda: woken.append(1))
    assert told(pipe) == ["lost 1", "2"]
    assert woken == [1, 1]
    assert told(pipe) == ["from within"]


def test_threads_lose_no_event() -> None:
    start, done, awake, found = threading.Barrier(5), threading.Event(), threading.Event(), list[tuple[int, int]]()

    def write(name: int) -> None:
        start.wait(5)
        for number in range(500):
            EARLY.info("x", name=name, number=number)

    def read() -> None:
        start.wait(5)
        while len(found) < 2000 and awake.wait(5):
            awake.clear()
            found.extend((each["name"], each["number"]) for each in logs.records())
        done.set()

    with taken(read=False) as logs:
        logs.pipe.wake(awake.set)
        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)] + [threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        assert done.wait(10)
        for thread in threads:
            thread.join(5)
    for name in range(4):
        assert [number for each, number in found if each == name] == list(range(500))


def test_threads_lose_no_record() -> None:
    pipe, start, done = LogPipe(records=10_000), threading.Barrier(5), threading.Event()
    found: list[bytes] = []
    awake = threading.Event()
    pipe.wake(awake.set)

    def write(name: int) -> None:
        start.wait(5)
        for number in range(500):
            pipe.put(b"%d-%d" % (name, number))

    def read() -> None:
        start.wait(5)
        while len(found) < 2000 and awake.wait(5):
            awake.clear()
            while records := pipe.take(7):
                found.extend(records)
        done.set()

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    assert done.wait(10)
    for thread in threads:
        thread.join(5)
    assert sorted(found) == sorted(b"%d-%d" % (name, number) for name in range(4) for number in range(500))
    assert pipe.dropped == 0


# --- records ----------------------------------------------------------------------------------------------------------


@READ
def test_structlog_and_logging_end_in_the_same_form(read: bool) -> None:
    with taken(read=read) as logs:
        structlog.get_logger("my.plugin").warning("scan.done", files=3, root=str(Path("/etc")))
        assert logs.only() == {
            "timestamp": "2026-01-01T12:00:00.125Z",
            "level": "Warning",
            "source": "Sample",
            "message": "scan.done",
            "logger": "my.plugin",
            "files": 3,
            "root": str(Path("/etc")),
        }
        STDLIB.warning("%d files in %s", 3, "/etc", extra={"host": "a"})
        record = logs.only()
        assert record.pop("timestamp").endswith("Z")
        assert record == {
            "level": "Warning",
            "source": "Sample",
            "message": "3 files in /etc",
            "logger": "library.part",
            "host": "a",
        }


@READ
def test_the_form_is_the_contracts(read: bool) -> None:
    other = Contract(log_level_field="Severity", log_message_field="Text", log_source_field="logger")
    with taken(contract=other, read=read) as logs:
        structlog.get_logger("me").info("hello", Text="kept", Severity=1)
        structlog.get_logger("me").info("hello", level="kept")
        one, two = logs.records()
    assert (one["Severity"], one["Text"], one["logger"], one["logger_"]) == ("Information", "hello", "Sample", "me")
    assert (one["Text_"], one["Severity_"]) == ("kept", 1)
    assert (two["Severity"], two["level"], two["logger_"]) == ("Information", "kept", "me")


@READ
def test_loggers_made_before_are_heard_each_time(read: bool) -> None:
    for _ in range(2):
        with taken(read=read) as logs:
            EARLY_BOUND.info("one")
            EARLY.bind(part="late").info("two")
            STDLIB.info("three")
            assert [record["message"] for record in logs.records()] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("trace", "Trace"),
        ("debug", "Debug"),
        ("info", "Information"),
        ("msg", "Information"),
        ("warning", "Warning"),
        ("warn", "Warning"),
        ("error", "Error"),
        ("exception", "Error"),
        ("critical", "Critical"),
        ("fatal", "Critical"),
    ],
)
@READ
def test_levels_are_the_agents_words(method: str, level: str, read: bool) -> None:
    with taken(level="Trace", read=read) as logs:
        getattr(structlog.get_logger(), method)("x")
        assert logs.only()["level"] == level
        structlog.get_logger().log(LEVELS[level] + 1, "x")
        STDLIB.log(LEVELS[level] + 1, "x")
        structlog.get_logger().log(1, "x")
        assert [record["level"] for record in logs.records()] == [level, level]


async def test_awaited_methods_log_as_well() -> None:
    with taken() as logs:
        log = structlog.get_logger()
        await log.ainfo("one", a=1)
        await log.alog(logging.ERROR, "two")
        await log.adebug("not told")
        try:
            raise ValueError("three")
        except ValueError:
            await log.aexception("failed")
        one, two, three = logs.records()
    assert (one["message"], one["a"], two["level"]) == ("one", 1, "Error")
    assert three["exception"].endswith("ValueError: three")


@READ
def test_what_is_bound_around_a_call_is_in_every_record(read: bool) -> None:
    with taken(read=read) as logs, structlog.contextvars.bound_contextvars(topic="Sample/Commands/scan"):
        EARLY_BOUND.info("one")
        STDLIB.info("two")
        one, two = logs.records()
    assert (one["topic"], one["part"], two["topic"]) == ("Sample/Commands/scan", "bound", "Sample/Commands/scan")


@READ
def test_what_is_nearest_to_the_call_counts(read: bool) -> None:
    with taken(read=read) as logs, structlog.contextvars.bound_contextvars(a="around", b="around", c="around"):
        structlog.get_logger().bind(a="bound", b="bound").info("x", a="call")
        STDLIB.info("x", extra={"a": "call"})
        one, two = logs.records()
    assert (one["a"], one["b"], one["c"]) == ("call", "bound", "around")
    assert (two["a"], two["b"]) == ("call", "around")


def test_a_traceback_and_a_stack_are_told() -> None:
    error: ValueError | None = None
    with taken() as logs:
        try:
            raise ValueError("broken")
        except ValueError as exc:
            error = exc
            structlog.get_logger().exception("one")
            STDLIB.exception("two")
        structlog.get_logger().info("three", exc_info=error)
        structlog.get_logger().info("four", exc_info=(ValueError, error, error.__traceback__))
        structlog.get_logger().info("five", exc_info=(None, None, None))
        STDLIB.info("six", stack_info=True)
        structlog.get_logger().info("seven", stack_info=True)
        *four, five, six, seven = logs.records()
    for record in four:
        assert record["exception"].startswith("Traceback (most recent call last):")
        assert record["exception"].endswith("ValueError: broken")
    assert "exception" not in five
    assert "test_a_traceback_and_a_stack_are_told" in six["stack"].splitlines()[-2]
    assert 'log.info("seven"' in seven["stack"].splitlines()[-1].replace("structlog.get_logger()", "log")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _no_class(_: object) -> type:
    raise RuntimeError("no class")


Liar = type("Liar", (), {"__class__": property(_no_class)})


class BrokenMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class BrokenList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Level(enum.Enum):
    HIGH = "high"


class Shout(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


CIRCLE: dict[str, object] = {"a": 1}
CIRCLE["self"] = [CIRCLE]
DEEP = reduce(lambda inner, _: [inner], range(100_000), list[Any]())
ID = uuid.UUID(int=5)


VALUES: list[tuple[object, object]] = [
    (None, None),
    (True, True),
    (1.5, 1.5),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    (10**5000, "<int of 16610 bits>"),
    (2**64 - 1, 2**64 - 1),
    (b"caf\xc3\xa9 \xff", "café \\xff"),
    (bytearray(b"x"), "x"),
    ("\ud800", "?"),
    (Level.HIGH, "<Level.HIGH: 'high'>"),
    (Shout("loud"), "LOUD"),
    (Path("a"), "a"),
    (ID, str(ID)),
    ((1, {2}), [1, [2]]),
    ({1: {"b": ()}}, {"1": {"b": []}}),
    (Broken(), "<Broken: no text>"),
    ({Broken(): Broken()}, {"<Broken: no text>": "<Broken: no text>"}),
    (BrokenMapping(), {"items": "<no items>"}),
    (BrokenList(), ["<no items>"]),
]


@pytest.mark.parametrize(
    ("value", "expected"), VALUES, ids=[type(value).__name__ + str(n) for n, (value, _) in enumerate(VALUES)]
)
@READ
def test_a_value_is_told(value: object, expected: object, read: bool) -> None:
    with taken(read=read) as logs:
        structlog.get_logger().info("x", value=value)
        STDLIB.info("x", extra={"value": value})
        for record in logs.records():
            assert record["value"] == expected


@pytest.mark.parametrize("value", [CIRCLE, DEEP, [DEEP] * 10], ids=["circle", "deep", "wide"])
def test_what_is_deep_or_a_circle_is_cut(value: object) -> None:
    with taken() as logs:
        structlog.get_logger().info("x", value=value)
        assert logs.only()["truncated"] is True


def named(name: Any) -> Call:
    return lambda log: logging.getLogger("library.part").handle(
        logging.makeLogRecord({"name": name, "levelno": logging.INFO, "msg": "x"})
    )


BROKEN_CALLS: dict[str, Call] = {
    "no name": named([]),
    "broken name": named(Broken()),
    "message": lambda log: log.info(Broken()),
    "argument": lambda log: log.info("%s", Broken()),
    "wrong type": lambda log: log.info("%d files", "no number"),
    "too few": lambda log: log.info("%s and %s", "one"),
    "mapping": lambda log: log.info("%(b)s", {"a": 1}),
    "liar": lambda log: log.info(Liar()),
    "none": lambda log: log.info(None),
    "bytes": lambda log: log.info(b"\xff"),
    "no text": lambda log: log.info("\ud800\x00\x1b"),
    "huge": lambda log: log.info("x" * 10_000_000),
    "exception": lambda log: log.info("x", exc_info=BrokenError()),
    "group": lambda log: log.info("x", exc_info=ExceptionGroup("many", [BrokenError(), ValueError("x" * 100_000)])),
}


@pytest.mark.parametrize("call", BROKEN_CALLS.values(), ids=BROKEN_CALLS)
@pytest.mark.parametrize("log", [EARLY, STDLIB], ids=["structlog", "logging"])
@READ
def test_a_broken_call_is_still_one_record(call: Call, log: object, read: bool) -> None:
    with taken(read=read) as logs:
        call(log)
        assert logs.only()["level"] == "Information"


ODD: dict[str, dict[str, object]] = {
    "liar": {"value": Liar()},
    "numbers": {"values": list(range(1_000_000))},
    "members": {"values": {str(number): "x" * 100 for number in range(10_000)}},
    "text": {"text": "x" * 10_000_000},
    "bytes": {"data": b"\xff" * 10_000_000},
    "nul": {"text": "\x00" * 100_000},
    "astral": {"text": "\U0001f600" * 100_000},
    "surrogates": {"text": "\ud800" * 100_000},
    "key": {"k" * 100_000: 1},
    "key of another kind": {Shout("loud"): 1},
    "own names": {"event": 1, "level": 2, "message": 3, "timestamp": 4, "source": 5, "logger": 6, "exception": 7},
    "positional_args": {"positional_args": 3},
    "exc_info": {"exc_info": "what"},
    "stack_info": {"stack_info": Broken},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
@READ
def test_odd_and_huge_fields_are_still_one_record(fields: dict[str, Any], read: bool) -> None:
    with taken(read=read) as logs:
        structlog.get_logger().info("odd", **fields)
        assert logs.only()["message"].startswith("odd")


def test_what_cannot_be_made_is_told_in_short_or_counted() -> None:
    nameless: Any = type("Nameless", (type,), {"__name__": property(_no_class)})

    class Unfit(Contract, frozen=True):
        def log_record(self, **_: object) -> dict[str, Any]:
            raise KeyError("timestamp")

    with taken() as logs:
        structlog.get_logger().error("x", value=nameless("Value", (), {})())
        assert (record := logs.only())["message"] == "a log record could not be made"
        assert record["level"] == "Error"
    with taken(contract=Unfit()) as logs:
        structlog.get_logger().error("x")
        assert logs.records() == [{"message": "1 records dropped"}]


@READ
def test_no_field_hides_another(read: bool) -> None:
    with taken(read=read) as logs:
        structlog.get_logger("me").info("told", event=1, level=2, message=3, timestamp=4, source=5)
        record = logs.only()
    assert (record["message"], record["level"], record["source"]) == ("told", "Information", "Sample")
    assert [record[name] for name in ("event_", "level_", "message_", "timestamp_", "source_")] == [1, 2, 3, 4, 5]


def test_a_long_traceback_keeps_both_ends_and_leaves_room() -> None:
    with taken() as logs:
        try:
            raise ValueError("middle " * 10_000 + "the end")
        except ValueError:
            structlog.get_logger().exception("m" * 100_000, host="a")
        record = logs.only()
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("the end")
    assert record["message"].endswith("m…")
    assert (record["host"], record["truncated"]) == ("a", True)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Broken),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
    max_leaves=12,
)


@PATIENT
@given(st.text(), st.dictionaries(st.text(), ANY), st.lists(ANY))
def test_whatever_is_logged_is_one_record(message: str, fields: dict[str, Any], args: list[Any]) -> None:
    with taken() as logs:
        structlog.get_logger().info(message, *args, **fields)
        STDLIB.info(message, *args)
        one, two = logs.records()
    assert one["level"] == two["level"] == "Information"
    assert len(lines_of(logs)) == 2


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *["password", "DB_PASSWORD", "passwd", "passphrase", "client_secret", "clientSecret", "accessToken", "api_key"],
        *["API-Key", "apikey", "Authorization", "Set-Cookie", "private key", "privateKey", "credentials"],
        *["aws_access_key_id"],
    ],
)
@READ
def test_what_stands_under_a_secret_name_is_masked(key: str, read: bool) -> None:
    with taken(read=read) as logs:
        structlog.get_logger().info("x", **{key: "s3cr3t"}, nested=[{"a": {key: ["s3cr3t"]}}])
        STDLIB.info("x", extra={key: 12345})
        one, two = logs.records()
    assert (one[key], one["nested"], two[key]) == ("***", [{"a": {key: "***"}}], "***")


def test_that_there_is_a_secret_or_none_may_be_told() -> None:
    with taken() as logs:
        structlog.get_logger().info("x", token=None, has_token=True, monkey="banana")
        record = logs.only()
    assert (record["token"], record["has_token"], record["monkey"]) == (None, True, "banana")


SECRET = 'pa"ss\\w/örd'


LEAKS: dict[str, Call] = {
    "message": lambda log: log.info(f"it is {SECRET}!"),
    "argument": lambda log: log.info("it is %s!", SECRET),
    "repr": lambda log: log.info("it is %r!", SECRET),
    "nested repr": lambda log: log.info("it is %r", {"a": [SECRET]}),
    "json": lambda log: log.info("it is %s", json.dumps([SECRET])),
    "url": lambda log: log.info("https://x/?q=pa%22ss%5Cw/%C3%B6rd"),
    "nested field": lambda log: log.info("x", extra={"value": {"a": [f"<{SECRET}>", SECRET.encode()]}}),
    "key": lambda log: log.info("x", extra={f"key {SECRET}": 1}),
    "exception": lambda log: log.info("x", exc_info=ValueError(f"wrong: {SECRET}")),
    "repr in exception": lambda log: log.info("x", exc_info=KeyError(SECRET)),
    "path": lambda log: log.info("x", extra={"path": Path(f"/a/{SECRET}")}),
    "bytes": lambda log: log.info(b"%s" % SECRET.encode()),
    "bytes in repr": lambda log: log.info("it is %s", [SECRET.encode()]),
}


@pytest.mark.parametrize("call", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("log", [EARLY, STDLIB], ids=["structlog", "logging"])
@READ
def test_a_secret_value_is_seen_nowhere(call: Call, log: object, read: bool) -> None:
    with taken(secrets=lambda: {SECRET, "", "ab"}, read=read) as logs:
        call(log)
        record = logs.only()
    everything = json.dumps(record, ensure_ascii=False) + "".join(lines_of(logs))
    assert "***" in everything
    assert "ss\\" not in everything
    assert "w/" not in everything


KEY = """-----BEGIN KEY-----
MIIBVAIBADANBgkq/hki+w0BAQEFAASC
  AgEAAkEAq7BFUpkGp3==\r
ab
-----END KEY-----
"""

IN_PIECES: dict[str, Call] = {
    "group": lambda log: log.info("x", exc_info=ExceptionGroup("several", [ValueError(f"cannot load {KEY}")])),
    "deep group": lambda log: log.info(
        "x", exc_info=ExceptionGroup("several", [ExceptionGroup("some", [ValueError(KEY), ValueError(KEY.strip())])])
    ),
    "stripped": lambda log: log.info(f"it is {KEY.strip()}!"),
    "other line ends": lambda log: log.info("it is %s!", "\r\n".join(KEY.splitlines())),
    "lines in a repr": lambda log: log.info("it is %r", KEY.split()),
    "lines in a URL": lambda log: log.info(
        "https://x/?q=MIIBVAIBADANBgkq/hki%2Bw0BAQEFAASC&r=AgEAAkEAq7BFUpkGp3%3D%3D"
    ),
    "in one piece": lambda log: log.info(KEY),
}


@pytest.mark.parametrize("call", IN_PIECES.values(), ids=IN_PIECES)
@READ
def test_a_secret_of_many_lines_is_masked_line_by_line(call: Call, read: bool) -> None:
    with taken(secrets=lambda: {KEY}, read=read) as logs:
        call(STDLIB)
        record = logs.only()
    everything = json.dumps(record) + "".join(lines_of(logs))
    assert "***" in everything
    assert not [part for part in ("MIIB", "AASC", "AgEA", "Gp3") if part in everything]


def test_short_lines_of_a_secret_stay_words() -> None:
    with taken(secrets=lambda: {KEY}) as logs:
        STDLIB.info("ab and abc")
        assert logs.only()["message"] == "ab and abc"


@PATIENT
@given(
    st.lists(st.sampled_from([".", "hunter2", "hunter2\nswordfish\n", "swordfish"]), max_size=12), st.integers(0, 60)
)
def test_a_cut_leaves_no_part_of_a_line_of_a_secret(parts: list[str], limit: int) -> None:
    redactor = Redactor(lambda: {"hunter2\nswordfish\n"})
    redactor.refresh()
    told = redactor.text("".join(parts), limit)
    assert set(told) <= {".", "*", "\n"}


@READ
def test_a_short_secret_is_masked_only_as_a_whole_value(read: bool) -> None:
    with taken(secrets=lambda: ["abc", "7"], read=read) as logs:
        structlog.get_logger().info("the abc of 7", one="abc", two="abcd", three=7, four=77, five=["abc"])
        record = logs.only()
        structlog.get_logger().info("abc")
        structlog.get_logger().info("seven", count=7, most=7.5)
        assert [(each["message"], each.get("count"), each.get("most")) for each in logs.records()] == [
            ("***", None, None),
            ("seven", "***", 7.5),
        ]
    assert record["message"] == "the abc of 7"
    assert [record[name] for name in ("one", "two", "three", "four", "five")] == ["***", "abcd", "***", 77, ["***"]]


@PATIENT
@given(st.lists(st.sampled_from([".", "hunter2", "hunter2-hunter2"]), max_size=12), st.integers(0, 40))
def test_a_cut_leaves_no_part_of_a_secret(parts: list[str], limit: int) -> None:
    redactor = Redactor(lambda: {"hunter2", "hunter2-hunter2"})
    redactor.refresh()
    told = redactor.text("".join(parts), limit)
    assert set(told) <= {".", "*"}
    assert len(told) <= max(limit, 3 * len(parts))


@pytest.mark.parametrize("position", range(8160, 8200))
def test_a_secret_at_the_end_of_a_long_message_is_masked_whole(position: int) -> None:
    with taken(secrets=lambda: {"hunter2-hunter2"}) as logs:
        STDLIB.info("." * position + "hunter2-hunter2" * 9 + "." * 10_000)
        assert set(logs.only()["message"]) <= set(".*…")


def test_new_secrets_count_at_once_and_the_last_known_when_asking_fails() -> None:
    now: list[Collection[str]] = [{"first-secret"}]

    def secrets() -> Collection[str]:
        return now[0]  # IndexError when there is nothing

    with taken(secrets=secrets) as logs:
        log = structlog.get_logger()
        log.info("first-secret second-secret")
        now[0] = {"second-secret"}
        log.info("first-secret second-secret")
        now.clear()
        log.info("first-secret second-secret")
        assert [record["message"] for record in logs.records()] == [
            "*** second-secret",
            "first-secret ***",
            "first-secret ***",
        ]


# --- what waits until it is asked for ---------------------------------------------------------------------------------

WORDS = st.text() | st.sampled_from(
    ["hunter2", "it is hunter2!", "7", "%", "%s", "%d of %s", "x" * 1500, "\ud800", "\x00"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
NAMES = st.text(max_size=60) | st.sampled_from(
    [
        "hunter2",
        "password",
        "level",
        "message",
        "logger",
        "exception",
        "event",
        "stack_info",
        "truncated",
        "positional_args",
    ]
)


@PATIENT
@given(WORDS, st.dictionaries(NAMES, SCALARS, max_size=40), st.lists(SCALARS, max_size=3), WORDS)
def test_an_event_that_waits_becomes_the_record_that_it_would_have_been_at_once(
    message: str, fields: dict[str, Any], args: list[Any], name: str
) -> None:
    found: list[dict[str, Any]] = []
    for read in (True, False):
        with taken(secrets=lambda: {"hunter2", "7"}, read=read) as logs:
            structlog.get_logger(name).info(message, *args, **fields)
            found.append(logs.only())
    assert found[0] == found[1]


def test_what_a_record_tells_is_what_was_so_at_the_call() -> None:
    values, extra = [1], {"host": "a", "values": {"a": 1}}
    with taken(read=False) as logs:
        bound = structlog.get_logger().bind(part="before")
        bound.info("one", values=values)
        bound.info("two")
        STDLIB.info("three", extra=extra)
        values.append(2)
        structlog.get_context(bound)["part"] = "after"
        extra["host"] = "b"
        logs.now[0] += 1
        one, two, three = logs.records()
    assert (one["values"], one["part"], two["part"], three["host"]) == ([1], "before", "before", "a")
    assert two["timestamp"] == "2026-01-01T12:00:00.125Z"


@pytest.mark.parametrize(("when", "told"), [(0.0, "1970-01-01T00:00:00.000Z"), (1.9999999, "1970-01-01T00:00:02.000Z")])
@READ
def test_a_moment_is_told_in_milliseconds(when: float, told: str, read: bool) -> None:
    with taken(read=read) as logs:
        logs.now[0] = when
        structlog.get_logger().info("x")
        assert logs.only()["timestamp"] == told


def test_events_of_every_kind_come_out_in_order() -> None:
    with taken(read=False) as logs:
        for number in range(1000):
            log, value = (EARLY, STDLIB)[number % 2], number if number % 3 else [number]
            log.info("%d", number) if number % 5 else structlog.get_logger().info(str(number), value=value)
        assert [record["message"] for record in logs.records()] == [str(number) for number in range(1000)]


def test_events_that_nobody_takes_are_bounded_like_records() -> None:
    asked: list[int] = []

    def secrets() -> Collection[str]:
        asked.append(1)
        return ()

    with taken(secrets=secrets, read=False) as logs:
        logs.pipe.bound(records=10, size=100_000)
        for number in range(300):
            EARLY.info("x" * 900, number=number)
        assert len(asked) == 1  # the first of them are records
        logs.pipe.settle()
        assert logs.pipe.dropped == 290
        notice, *others = logs.records()
    assert (notice["message"], [each["number"] for each in others]) == ("290 records dropped", list(range(290, 300)))


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 1_001},
        {"k" * 51: 1},
        {f"k{number}": 1 for number in range(33)},
        {Shout("loud"): 1},
        {"value": Shout("loud")},
        {"value": Level.HIGH},
        {"values": [1]},
        {"number": 2**63},
    ],
    ids=["long text", "long name", "many fields", "name", "text", "enum", "list", "large number"],
)
def test_what_is_large_or_may_change_or_has_code_of_its_own_does_not_wait(fields: dict[str, Any]) -> None:
    asked: list[int] = []

    def secrets() -> Collection[str]:
        asked.append(1)
        return ()

    with taken(secrets=secrets, read=False) as logs:
        EARLY.info("x", number=1, text="y" * 900)
        assert asked == []
        EARLY.info("x", **fields)
        assert asked
        assert len(logs.records()) == 2


def test_a_secret_that_becomes_known_before_the_record_is_made_is_masked() -> None:
    now = {"first-secret"}
    with taken(secrets=lambda: frozenset(now), read=False) as logs:
        EARLY.info("first-secret second-secret")
        now.add("second-secret")
        assert logs.only()["message"] == "*** ***"


def test_a_pipe_is_woken_by_an_event_that_waits_and_once() -> None:
    woken: list[int] = []
    with taken(read=False) as logs:
        EARLY.info("one")
        logs.pipe.wake(lambda: woken.append(1))
        assert woken == [1]
        EARLY.info("two")
        assert len(logs.records()) == 2
        assert woken == [1]
        EARLY.info("three")
        logs.pipe.settle()
        EARLY.info("four")
        assert (woken, len(logs.records())) == ([1, 1], 2)


def test_what_is_logged_while_records_are_made_does_not_go_on_for_ever() -> None:
    def secrets() -> Collection[str]:
        EARLY.info("asked")
        return {"hunter2"}

    with taken(secrets=secrets, read=False) as logs:
        EARLY.info("is it hunter2")
        assert [record["message"] for record in logs.records()] == ["is it ***", "asked"]


def test_an_event_without_a_record_is_counted_and_the_others_are_told() -> None:
    class Unfit(Contract, frozen=True):
        def log_record(self, *, message: str, **others: Any) -> dict[str, Any]:
            if message != "unfit":
                return super().log_record(message=message, **others)
            raise KeyError("timestamp")

    with taken(contract=Unfit(), read=False) as logs:
        for message in ("one", "unfit", "two"):
            EARLY.info(message)
        assert [record["message"] for record in logs.records()] == ["1 records dropped", "one", "two"]
        assert logs.pipe.dropped == 1


# --- levels -----------------------------------------------------------------------------------------------------------


def test_the_level_changes_for_every_logger_at_once() -> None:
    with taken(level="warning") as logs:
        bound = structlog.get_logger().bind(a=1)
        for level in ("Warning", "Debug", "Error"):
            logs.control.level = level
            assert logs.control.level == level
            assert bound.is_enabled_for(logging.DEBUG) is (level == "Debug")
            for log in (bound, EARLY_BOUND, STDLIB):
                log.debug(f"debug at {level}")
                log.warning(f"warning at {level}")
        messages = [record["message"] for record in logs.records()]
    assert messages == ["warning at Warning"] * 3 + ["debug at Debug", "warning at Debug"] * 3


def test_a_library_with_a_level_of_its_own_is_not_heard_below_ours() -> None:
    library = logging.getLogger("library.loud")
    library.setLevel(logging.DEBUG)
    with taken() as logs:
        library.debug("x")
        assert logs.records() == []


def test_a_wrong_level_is_an_error_and_changes_nothing() -> None:
    with taken() as logs:
        with pytest.raises(
            SettingsError, match="one of Trace, Debug, Information, Warning, Error, Critical, not 'Loud'"
        ):
            logs.control.level = "Loud"
        assert logs.control.level == "Information"
    with pytest.raises(SettingsError), taken(level=""):
        pass


def test_nothing_is_made_of_what_is_not_told() -> None:
    asked: list[str] = []

    class Watched:
        def __str__(self) -> str:
            asked.append("text")
            return ""

        __repr__ = __str__

    def secrets() -> Collection[str]:
        asked.append("secrets")
        return ()

    with taken(secrets=secrets) as logs:
        structlog.get_logger().debug(Watched(), Watched(), value=Watched())
        STDLIB.debug("%s", Watched())
        assert (asked, logs.records()) == ([], [])


# --- feedback ---------------------------------------------------------------------------------------------------------


class Chatty:
    """Logs itself when it is looked at."""

    def __repr__(self) -> str:
        structlog.get_logger().info("looked at %s", self, value=self, values=[1, "a", self], exc_info=ValueError(self))
        STDLIB.info(self)
        return "chatty"

    __str__ = __repr__


def test_a_value_that_logs_itself_is_told_without_an_end_less_chain() -> None:
    with taken() as logs:
        structlog.get_logger().info("outer", value=Chatty())
        first, second, third = logs.records()
    assert (first["message"], first["value"], first["values"], first["exception"]) == (
        "looked at %s",
        "<Chatty>",
        "<list>",
        "ValueError",
    )
    assert (second["message"], third["message"], third["value"]) == ("<Chatty>", "outer", "chatty")


def test_asking_for_secrets_may_log() -> None:
    def secrets() -> Collection[str]:
        STDLIB.info("asked")
        return {"hunter2"}

    with taken(secrets=secrets) as logs:
        STDLIB.info("is it hunter2")
        assert [record["message"] for record in logs.records()] == ["asked", "is it ***"]


@pytest.mark.parametrize("name", ["kepm_plugin.outbox", "paho.mqtt.client", "asyncio"])
def test_a_transport_that_logs_what_it_sends_does_not_feed_itself(name: str) -> None:
    transport = logging.getLogger(name)
    with taken() as logs:
        STDLIB.info("start")
        sent = 0
        for _ in range(1000):
            for record in logs.pipe.take(10):
                sent += 1
                transport.info("sending %d bytes", len(record))
                transport.warning("slow")
        assert sent == 1 + 20
        logs.now[0] += 1000
        transport.error("x")
        assert logs.only()["suppressed"] == 1
        transport.error("y")
        assert "suppressed" not in logs.only()


@pytest.mark.parametrize("level", ["Debug", "Trace"])
def test_the_transports_small_talk_is_for_people_and_only_at_debug(level: str) -> None:
    with taken() as logs:
        logs.control.fallback(False)
        for name in TRANSPORT:
            logging.getLogger(name).info("not told")
        logs.control.level = level
        for name in TRANSPORT:
            logging.getLogger(f"{name}.inner").debug("seen")
        logging.getLogger("httpxy").info("another library")
        assert [record["logger"] for record in logs.records()] == ["httpxy"]
    assert [line.split()[2] for line in lines_of(logs)] == [f"{name}.inner" for name in TRANSPORT]


# --- the stream for people --------------------------------------------------------------------------------------------


def test_people_get_one_line_for_each_record_while_no_record_leaves() -> None:
    with taken() as logs:
        structlog.get_logger("me").info("scan.done", root="/a b", files=3, token="x", mark="a=b")
        try:
            raise ValueError("two\nlines")
        except ValueError:
            structlog.get_logger().exception("bad \x1b[31m\r\u2028text")
        logs.control.fallback(False)
        structlog.get_logger().info("link is up")
        logs.control.fallback(True)
        structlog.get_logger().info("link is down")
        assert len(logs.records()) == 4
    one, two, three = lines_of(logs)
    assert one == '2026-01-01T12:00:00.125Z Information me scan.done root="/a b" files=3 token=*** mark="a=b"'
    assert r"Error       bad \x1b[31m\r\u2028text | Traceback (most recent call last): | " in two
    assert two.endswith(" | ValueError: two | lines")
    assert three.endswith("link is down")


class Stream(io.StringIO):
    def __init__(self, terminal: bool = False, fails: bool = False) -> None:
        super().__init__()
        self.terminal, self.fails = terminal, fails

    def isatty(self) -> bool:
        if self.fails:
            raise RuntimeError("no terminal")
        return self.terminal

    def write(self, text: str, /) -> int:
        if self.fails:
            raise RuntimeError("no stream")
        return super().write(text)


def test_a_terminal_gets_the_lines_always() -> None:
    with taken(people=Stream(terminal=True)) as logs:
        logs.control.fallback(False)
        STDLIB.info("seen")
    assert len(lines_of(logs)) == 1


def test_a_broken_stream_is_no_error() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, Stream(fails=True)):
        with taken(people=stream) as logs:
            STDLIB.info("one")
            logs.control.fallback(False)
            STDLIB.info("two")
            assert len(logs.records()) == 2


def test_standard_error_is_looked_up_at_each_line_and_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, stream = LogPipe(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", None)  # a windowed program on Windows
    with logging_to(pipe, source="Sample") as control:
        control.level = "Debug"
        STDLIB.info("one")
        logging.getLogger("paho").debug("not told")
        monkeypatch.setattr(sys, "stderr", stream)
        STDLIB.info("two")
        assert len(pipe.take(10)) == 2
    assert stream.getvalue().count("\n") == 1


def test_standard_error_may_vanish_between_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str, /) -> int:
            writing.set()
            assert go_on.wait(5)
            return super().write(text)

    stream = Slow()
    monkeypatch.setattr(sys, "stderr", stream)
    with logging_to(LogPipe(), source="Sample"):
        STDLIB.info("one")
        assert writing.wait(5)
        STDLIB.info("two")
        monkeypatch.setattr(sys, "stderr", None)
        go_on.set()
    assert stream.getvalue().count("\n") == 1


def test_a_stream_that_logs_what_it_is_given_does_not_feed_itself() -> None:
    written = threading.Event()

    class Logging(io.StringIO):
        def write(self, text: str, /) -> int:
            STDLIB.warning("written")
            written.set()
            return super().write(text)

    with taken(people=Logging()) as logs:
        STDLIB.info("one")
        assert written.wait(5)
    assert [record["message"] for record in logs.records()] == ["one", "written"]
    assert len(lines_of(logs)) == 1


def test_lines_that_nobody_reads_block_nobody_and_are_bounded() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as unread, os.fdopen(writer, "w") as stream:
        with taken(people=stream) as logs:
            for _ in range(3000):
                STDLIB.info("x" * 1000)
            assert len(logs.records()) == 3000
        (stuck,) = [thread for thread in threading.enumerate() if thread.name == "kepm.logs.fallback"]
        text = b""
        while b"lines dropped" not in text:
            text += os.read(unread.fileno(), 65_536)
        unread.close()  # the rest meets a broken pipe
        stuck.join(5)
        assert not stuck.is_alive()


def test_a_process_whose_standard_error_nobody_reads_ends() -> None:
    """The interpreter aborts at its end where a daemon thread is stuck inside of a stream."""
    program = (
        "import logging\n"
        "from kepm_plugin.logs import LogPipe, logging_to\n"
        "with logging_to(LogPipe(), source='Sample'):\n"
        "    for _ in range(1000): logging.getLogger('x').warning('x' * 1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) as process:
        assert process.wait(20) == 0


# --- leaving no trace -------------------------------------------------------------------------------------------------


def test_both_libraries_are_as_before_afterwards() -> None:
    root = logging.getLogger()
    before = structlog.get_config() | {"processors": list(structlog.get_config()["processors"])}
    level, handlers = root.level, list(root.handlers)
    with pytest.raises(ZeroDivisionError), taken():
        STDLIB.info("%d handlers", len(handlers) // 0)
    assert (structlog.get_config(), root.level, root.handlers) == (before, level, handlers)
    assert not [thread for thread in threading.enumerate() if thread.name == "kepm.logs.fallback"]


def test_an_author_may_capture_logs_in_a_test() -> None:
    with taken() as logs:
        bound = structlog.get_logger().bind(a=1)
        with structlog.testing.capture_logs() as captured:
            bound.debug("x", b=2)
        assert captured == [{"event": "x", "a": 1, "b": 2, "log_level": "debug"}]
        assert logs.records() == []
        bound.info("y")
        assert logs.only()["message"] == "y"


def test_a_logger_that_was_used_goes_by_the_configuration_in_force_afterwards() -> None:
    before, captured = structlog.get_config(), structlog.testing.LogCapture()
    log = structlog.get_logger("kept", part="initial")
    with taken() as logs:
        log.info("one")
        bound = log.bind(a=1)
        assert logs.only()["part"] == "initial"
    structlog.configure([captured], structlog.make_filtering_bound_logger(logging.INFO))
    try:
        log.debug("not told")
        log.info("two of %d", 3)
        bound.error("three", b=2)
    finally:
        structlog.configure(**before)
    assert captured.entries == [
        {"event": "two of 3", "part": "initial", "log_level": "info"},
        {"event": "three", "part": "initial", "a": 1, "b": 2, "log_level": "error"},
    ]
    structlog.configure([captured])
    try:
        with taken() as logs:
            bound.info("four")
            assert (logs.only()["message"], len(captured.entries)) == ("four", 2)
    finally:
        structlog.configure(**before)
    with taken() as logs:
        bound.info("five")
        assert logs.only()["message"] == "five"


def add_method(_: object, method: str, event: Mapping[str, object]) -> dict[str, object]:
    return {**event, "method": method}


def test_a_processor_that_was_added_is_heard() -> None:
    with taken() as logs, structlog.contextvars.bound_contextvars(topic="a"):
        structlog.get_config()["processors"].insert(0, add_method)
        structlog.get_logger("me").info("%d of %d", 1, 2, event=3)
        structlog.get_logger("me").debug("not told")
        record = logs.only()
    assert (record["message"], record["method"], record["event_"], record["topic"], record["logger"]) == (
        "1 of 2",
        "info",
        3,
        "a",
        "me",
    )


def test_a_configuration_with_other_processors_is_put_back() -> None:
    before = structlog.get_config()
    structlog.configure(processors=(structlog.processors.JSONRenderer(),))
    try:
        with taken() as logs:
            structlog.get_logger().info("x")
            assert logs.only()["message"] == "x"
        assert isinstance(structlog.get_config()["processors"], tuple)
    finally:
        structlog.configure(**before)


def test_the_pipe_tells_of_dropped_records_in_the_same_form() -> None:
    pipe = LogPipe(records=1)
    with logging_to(pipe, source="Sample", fallback=io.StringIO(), clock=lambda: NOON):
        STDLIB.info("one")
        STDLIB.info("two")
        notice, record = map(json.loads, pipe.take(10))
    assert notice == {
        "timestamp": "2026-01-01T12:00:00.125Z",
        "level": "Warning",
        "source": "Sample",
        "message": "1 records dropped",
        "logger": "kepm_plugin.logs",
        "dropped": 1,
    }
    assert record["message"] == "two"
    assert set(LOG_LEVELS) >= {notice["level"], record["level"]}
