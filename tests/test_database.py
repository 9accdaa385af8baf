"""The file under commits without end, and under commands that look at it."""

import errno
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kepm_plugin.database import is_there
from kepm_plugin.database._checkpoints import Checkpoints
from kepm_plugin.errors import StoreError
from kepm_plugin.message import Received
from kepm_plugin.store import FILE, Store, memory_store, open_letters, open_store

MESSAGE = Received("P/Events/x", bytes(4_000), qos=1, received_at=2e9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "P"


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the log's bounds small: 20 pages for the thread, and so many for commits themselves."""

    def bound(most: int) -> None:
        monkeypatch.setattr("kepm_plugin.database._checkpoints.LOG_BYTES", 20 * 4120)
        monkeypatch.setattr("kepm_plugin.database._checkpoints.LOOK", 4)
        monkeypatch.setattr("kepm_plugin.database._file.LOG_BYTES", 20 * 4120)
        monkeypatch.setattr("kepm_plugin.database._file.MOST_PAGES", most)

    return bound


@dataclass
class Thread:
    """What is seen of the thread."""

    woken: int = 0
    names: list[str] = field(default_factory=list[str])
    moved: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    """Counts how often the thread is woken, and each checkpoint that it has made."""
    seen = Thread()
    wake, move = Checkpoints.wake, Checkpoints.move

    def waking(self: Checkpoints) -> None:
        seen.woken += 1
        wake(self)

    def moving(self: Checkpoints, connection: sqlite3.Connection) -> None:
        move(self, connection)
        seen.names.append(threading.current_thread().name)
        seen.moved.release()

    monkeypatch.setattr(Checkpoints, "wake", waking)
    monkeypatch.setattr(Checkpoints, "move", moving)
    return seen


def working(store: Store, commits: int) -> None:
    for _ in range(commits // 2):
        (row,) = store.journal([MESSAGE])
        store.finish(row.id)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kepm.")]


def pages(folder: Path) -> int:
    return (folder / f"{FILE}-wal").stat().st_size // 4120


def test_a_thread_moves_the_log_into_the_file_and_ends_with_the_store(
    folder: Path, small: Callable[[int], None], thread: Thread
) -> None:
    small(1_000_000)
    with open_store(folder) as store:
        assert threads() == [], "none before it is needed"
        for number in range(3):
            before = (folder / FILE).stat().st_size
            while thread.woken == number:
                store.journal([MESSAGE])
            assert pages(folder) > 20
            assert thread.moved.acquire(timeout=10)
            # Nothing is in the log that is not in the file: the next commit begins it anew, and cuts it back.
            store.journal([MESSAGE])
            assert pages(folder) <= 20
            assert (folder / FILE).stat().st_size > before, "what was in the log alone"
        assert threads() == ["kepm.checkpoint"]
        count = store.unfinished_count()
    assert thread.names == ["kepm.checkpoint"] * 3
    assert threads() == []
    with open_store(folder) as store:
        assert store.unfinished_count() == count


def test_the_log_is_bounded_where_no_thread_comes_to_the_end(
    folder: Path, small: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(60)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    largest = 0
    with open_store(folder) as store:
        for _ in range(50):
            working(store, 4)
            largest = max(largest, pages(folder))
    assert 55 < largest < 80


def test_in_memory_there_is_no_log_and_no_thread(small: Callable[[int], None]) -> None:
    small(20)
    with memory_store() as store:
        working(store, 100)
        assert threads() == []


def test_a_checkpoint_that_fails_is_said_and_loses_nothing(
    folder: Path,
    small: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    small(1_000_000)
    told = threading.Event()

    class Failing(sqlite3.Connection):
        def execute(self, statement: str, /, *arguments: Any) -> sqlite3.Cursor:
            if "wal_checkpoint" in statement:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(statement, *arguments)

    connect = sqlite3.connect

    def connecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=Failing, **options)

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    monkeypatch.setattr(sqlite3, "connect", connecting)
    handler = Told()
    logging.getLogger("kepm_plugin.database").addHandler(handler)
    try:
        with open_store(folder) as store:
            working(store, 40)
            assert told.wait(10)
            store.journal([MESSAGE])
    finally:
        logging.getLogger("kepm_plugin.database").removeHandler(handler)
    assert "plugin.db could not be moved into it: disk I/O error" in caplog.text
    assert threads() == []
    with open_store(folder) as store:
        assert store.unfinished_count() == 1


def test_a_thread_that_does_not_keep_up_is_left_alone_or_commits_would_find_it_at_work_for_ever(
    folder: Path, small: Callable[[int], None], thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(1_000_000)
    monkeypatch.setattr("kepm_plugin.database._checkpoints.MOST_BYTES", 70 * 4120)
    goes_on = threading.Event()

    def hung(self: Checkpoints, connection: sqlite3.Connection) -> None:
        goes_on.wait(20)

    monkeypatch.setattr(Checkpoints, "move", hung)
    with open_store(folder) as store:
        working(store, 200)
        goes_on.set()
        assert pages(folder) > 200
    assert 1 <= thread.woken <= 3, "at 20, 40 and 60 pages"


def test_closing_waits_for_a_disk_that_does_not_answer_for_a_bounded_time_only(
    folder: Path, small: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(1_000_000)
    monkeypatch.setattr("kepm_plugin.database._checkpoints.CLOSING", 0.01)
    hung, answers = threading.Event(), threading.Event()

    def move(self: object, connection: object) -> None:
        hung.set()
        answers.wait(20)

    monkeypatch.setattr(Checkpoints, "move", move)
    with open_store(folder) as store:
        working(store, 40)
        assert hung.wait(10)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "kepm.checkpoint")
    assert thread.daemon, "or the process could not end"
    answers.set()
    thread.join(10)
    assert threads() == []


# --- what a command sees ----------------------------------------------------------------------------------------------


@contextmanager
def child(code: str, *arguments: object) -> Generator[subprocess.Popen[str]]:
    """Run a program until it has printed a line; it is killed at the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        os.kill(process.pid, signal.SIGKILL)


PLUGIN = """
import sys
from pathlib import Path
from kepm_plugin.message import Received
from kepm_plugin.store import open_store
with open_store(Path(sys.argv[1])) as store:
    store.bury(Received("P/Events/x", b"1", 1), reason="failed", details="")
    print("ready", flush=True)
    sys.stdin.read()
"""


def reasons(folder: Path) -> list[str]:
    with open_letters(folder / FILE) as letters:
        assert letters is not None
        return [entry.reason for entry in letters.all()]


def test_it_is_read_while_the_plugin_runs_after_it_was_killed_and_after_it_has_ended(folder: Path) -> None:
    with child(PLUGIN, folder):
        assert reasons(folder) == ["failed"]
    log = (folder / f"{FILE}-wal").read_bytes()
    before = (folder / FILE).read_bytes()
    assert log, "what the plugin has written is in the log alone"
    assert reasons(folder) == ["failed"]
    assert ((folder / FILE).read_bytes(), (folder / f"{FILE}-wal").read_bytes()) == (before, log)
    with open_store(folder):
        pass
    assert not (folder / f"{FILE}-wal").exists()
    before = (folder / FILE).read_bytes()
    assert reasons(folder) == ["failed"]
    assert (folder / FILE).read_bytes() == before
    with open_store(folder) as store:
        assert [letter.reason for letter in store.dead_letters()] == ["failed"]


def test_no_file_is_no_error_and_none_is_made(folder: Path) -> None:
    with open_letters(folder / FILE, writable=True) as letters:
        assert letters is None
    (folder.parent / "file").touch()
    assert not is_there(folder.parent / "file" / FILE)
    assert not folder.exists()


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 999")


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE dead (id)")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_garbage, r"plugin\.db is damaged, and left as it is"),
        (_foreign, r"plugin\.db is damaged, and left as it is"),
        (_newer, r"plugin\.db was written by a newer version .* use the command of that version"),
    ],
)
@pytest.mark.parametrize("writable", [False, True])
def test_a_file_that_cannot_be_used_is_named_and_left_alone(
    folder: Path, spoil: Callable[[Path], None], said: str, *, writable: bool
) -> None:
    with open_store(folder):
        pass
    spoil(folder / FILE)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(StoreError, match=said), open_letters(folder / FILE, writable=writable):
        pass
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in before} == before
    assert not list(folder.glob("*-2*")), "set aside"


def test_what_is_no_file_is_not_opened(folder: Path, tmp_path: Path) -> None:
    with open_store(tmp_path / "Other"):
        pass
    folder.mkdir()
    (folder / FILE).symlink_to(tmp_path / "Other" / FILE)
    with pytest.raises(StoreError, match="is no regular file"):
        is_there(folder / FILE)
    with pytest.raises(StoreError, match="is no regular file"), open_store(folder):
        pass


def test_without_permission_it_is_said_who_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, as which tests may run, is never refused: the system's answer is played."""
    with open_store(folder):
        pass

    def denied(path: Path, mode: int) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", denied)
        with pytest.raises(StoreError, match=r"permission denied; run this as the user .* which is root"):
            is_there(folder / FILE)

    def refused(path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(StoreError, match=r"cannot look for .*: Permission denied; run this as the user"):
        is_there(folder / FILE)


def test_looking_does_not_end_the_locks_of_a_plugin_in_the_same_process(folder: Path) -> None:
    """Whoever closes a file ends all locks that the process has on it (POSIX); SQLite would then take ours for gone."""
    other = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("SELECT * FROM dead").fetchall()
db.close()
"""
    with open_store(folder) as store:
        store.journal([MESSAGE])
        with open_store(folder) as second:
            assert second.unfinished_count() == 1
        assert reasons(folder) == []
        subprocess.run([sys.executable, "-c", other, folder / FILE], check=True, timeout=20)
        assert (folder / f"{FILE}-wal").exists(), "the last one to close the file removes the log"
        store.journal([MESSAGE])
        shutil.copytree(folder, folder.parent / "copy")
    with open_store(folder.parent / "copy") as store:
        assert store.unfinished_count() == 2
