"""A disk that is full or fails, and a file that is damaged, from the session to `Status`; SQLite itself says so."""

import logging
import resource
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin import Handler, Message, Plugin
from kepm_plugin.store import FILE, Limits, open_store
from kepm_plugin.testing import Hosted, hosted
from kepm_plugin.testing._memory import MemorySession
from tests.engine.bench import JSON, fresh
from tests.engine.world import World


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kepm_plugin.dispatch._dispatcher.RETRY", 0.01)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that the plugin opens."""
    made, connect = list[sqlite3.Connection](), sqlite3.connect

    def connecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connecting)
    return made


@pytest.fixture
def acknowledged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The packet ids that the broker was told are done."""
    mids, acknowledge = list[int](), MemorySession.acknowledge

    def noting(self: MemorySession, done: Sequence[int]) -> None:
        mids.extend(done)
        acknowledge(self, done)

    monkeypatch.setattr(MemorySession, "acknowledge", noting)
    return mids


@contextmanager
def full(connection: sqlite3.Connection) -> Generator[None]:
    """Let the file not grow any more: what SQLite says then is what it says where the disk is full."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (before,) = connection.execute("PRAGMA max_page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    yield
    connection.execute(f"PRAGMA max_page_count = {before}")


@contextmanager
def failing(folder: Path) -> Generator[None]:
    """Have the system refuse to write behind where the log ends now, which to SQLite is a disk that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / f"{FILE}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damage(folder: Path) -> None:
    """Make the file one that SQLite calls malformed, under the plugin's hands."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        (version,) = db.execute("PRAGMA schema_version").fetchone()
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET rootpage = 999999 WHERE name = 'journal'")
        db.execute(f"PRAGMA schema_version = {version + 1}")


class Handled:
    """The numbers of the messages that a handler has had."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._changed = anyio.Event()

    def add(self, number: object) -> None:
        self.numbers.append(int(str(number)))
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.numbers) < count:
                await self._changed.wait()


def counting(seen: Handled) -> type[Plugin]:
    kind = fresh(heartbeat=0.05)

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            seen.add(message.payload["n"])

    return kind


def large(number: int) -> JSON:
    """Return a payload that needs pages of its own."""
    return {"n": number, "rest": "x" * 20_000}


def set_aside(folder: Path) -> list[str]:
    """Return why files were set aside."""
    return [path.name.split(".")[2].partition("-")[0] for path in folder.glob(f"{FILE}.*Z")]


async def reported(host: Hosted[Any], state: str, reason: str = "") -> dict[str, Any]:
    """Return the first report with a state and a reason."""
    with anyio.fail_after(5):
        for number in count(1):
            report: dict[str, Any] = (await host.until_published("Status", number))[-1]
            if report["state"] == state and reason in report["reason"]:
                return report
    raise AssertionError


@pytest.mark.parametrize("fault", ["full", "failing"])
async def test_what_cannot_be_written_is_held_unacknowledged_and_handled_when_it_can(
    tmp_path: Path, connections: list[sqlite3.Connection], acknowledged: list[int], fault: str
) -> None:
    seen = Handled()
    async with hosted(counting(seen), data_dir=tmp_path) as host:
        await host.publish("Events", {"n": 0})
        await seen.until(1)
        with full(connections[0]) if fault == "full" else failing(tmp_path):
            for number in range(1, 4):
                await host.publish("Events", large(number))
            said = {"full": "database or disk is full", "failing": "disk I/O error"}[fault]
            report = await reported(host, "degraded", said)
            assert "cannot journal messages in" in report["reason"]
            assert "make room there" in report["reason"]
            assert (len(acknowledged), seen.numbers) == (1, [0])
        await seen.until(4)
        await reported(host, "running")
    assert (len(acknowledged), seen.numbers) == (4, [0, 1, 2, 3])


async def test_a_journal_that_is_full_takes_more_when_there_is_room(tmp_path: Path, acknowledged: list[int]) -> None:
    seen, gate, kind = Handled(), anyio.Event(), fresh(heartbeat=0.05)

    @kind.topic("Events")
    class Event(Handler[Plugin]):
        async def handle(self, message: Message[JSON]) -> None:
            await gate.wait()
            seen.add(message.payload["n"])

    with open_store(tmp_path, limits=Limits(journal_bytes=50_000)) as store:
        world = World(kind, store=store)
        async with world.running():
            await world.served()
            for number in range(5):
                world.send("P/Events", large(number))
                await anyio.wait_all_tasks_blocked()  # each in a reading of its own
            await world.until(lambda: "degraded" in world.states())
            report = world.on("P/Status")[-1]
            assert "the journal holds 3 messages and is full" in report["reason"]
            assert (store.unfinished_count(), len(acknowledged)) == (3, 3)
            gate.set()
            await seen.until(5)
            await world.until(lambda: world.states()[-1] == "running")
    assert (len(acknowledged), seen.numbers) == (5, [0, 1, 2, 3, 4])


async def test_a_file_that_gets_damaged_degrades_the_plugin_and_is_set_aside_at_the_next_start(
    tmp_path: Path, acknowledged: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    seen = Handled()
    async with hosted(counting(seen), data_dir=tmp_path) as host:
        await host.publish("Events", {"n": 0})
        await seen.until(1)
        damage(tmp_path)
        await host.publish("Events", {"n": 1})
        report = await reported(host, "degraded", "plugin.db, which is damaged: ")
        assert "start the plugin anew, it then sets the file aside" in report["reason"]
        # No crash, which the agent would answer with a new start, and what needs no file goes on.
        await host.publish("Events", {"n": 2}, qos=0)
        await seen.until(2)
        assert len(acknowledged) == 1
        outcome = await host.stop()
        assert (outcome.error, outcome.cut_off) == (None, False)
    assert seen.numbers == [0, 2]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        async with hosted(counting(seen), data_dir=tmp_path) as host:
            await host.publish("Events", {"n": 3})
            await seen.until(3)
            await reported(host, "running")
    assert "plugin.db is damaged and was set aside as" in caplog.text
    assert set_aside(tmp_path) == ["damaged"]


@pytest.mark.parametrize("fault", ["damaged", "newer"])
async def test_a_plugin_starts_with_a_file_that_it_cannot_use(tmp_path: Path, fault: str) -> None:
    seen = Handled()
    async with hosted(counting(seen), data_dir=tmp_path):
        pass
    if fault == "damaged":
        damage(tmp_path)
    else:
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            db.execute("PRAGMA user_version = 999")
    async with hosted(counting(seen), data_dir=tmp_path) as host:
        await host.publish("Events", {"n": 1})
        await seen.until(1)
    assert set_aside(tmp_path) == [fault]
