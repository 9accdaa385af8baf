import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from msgspec.structs import replace

from kepm_plugin import instance
from kepm_plugin.errors import InstanceError, StartedAsJob, StoreError
from kepm_plugin.holder import look, send
from kepm_plugin.instance import (
    LOOK,
    RETRY,
    SILENCE,
    InstanceLock,
    Launcher,
    Succession,
    instance_lock,
    refuse_job,
)

HOLDER = """
import sys
from pathlib import Path
from kepm_plugin.instance import instance_lock
with instance_lock("MyWorker", Path(sys.argv[1])) as lock:
    print(lock.try_acquire(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Generator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "True\n"
            yield process
        finally:
            process.kill()


async def taken(lock: InstanceLock) -> None:
    with anyio.fail_after(5):
        while not lock.try_acquire():  # noqa: ASYNC110  the way to wait for another process
            await anyio.sleep(RETRY)


def test_one_object_holds_the_lock_and_the_next_gets_it_when_it_is_released(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as first, instance_lock("MyWorker", tmp_path) as second:
        assert first.try_acquire()
        assert first.try_acquire()
        assert not second.try_acquire()
        assert (first.held, second.held) == (True, False)
        first.release()
        first.release()
        assert second.try_acquire()
    assert not second.held


def test_another_plugin_has_another_lock(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as first, instance_lock("Other", tmp_path) as second:
        assert first.try_acquire()
        assert second.try_acquire()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, end: signal.Signals) -> None:
    with instance_lock("MyWorker", tmp_path) as lock, holder(tmp_path) as process:
        assert not lock.try_acquire()
        os.kill(process.pid, end)
        await taken(lock)


async def test_a_stopped_process_keeps_the_lock_and_the_wait_for_it_can_be_cancelled(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as lock, holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with anyio.move_on_after(0.2) as scope:
            await taken(lock)
        assert scope.cancelled_caught
        assert not lock.held


def test_a_program_that_the_holder_started_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as first, instance_lock("MyWorker", tmp_path) as second:
        assert first.try_acquire()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            first.release()
            assert second.try_acquire()
            child.kill()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """As workers of multiprocessing are on some systems: the plugin is killed, and its worker lives on."""
    code = """
import os, sys
from pathlib import Path
from kepm_plugin.instance import instance_lock
with instance_lock("MyWorker", Path(sys.argv[1])) as lock:
    assert lock.try_acquire()
    if os.fork():
        os._exit(0)
    print("alone", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "alone\n"
        assert parent.wait(5) == 0
        with instance_lock("MyWorker", tmp_path) as lock:
            assert lock.try_acquire()
        parent.stdin.close()
        assert parent.stdout.read() == ""


async def test_the_file_is_never_unlinked(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as lock:
        assert lock.try_acquire()
        inode = lock.path.stat().st_ino
    with holder(tmp_path) as process:
        process.kill()
        process.wait(5)
    with instance_lock("MyWorker", tmp_path) as lock:
        await taken(lock)
        assert lock.path.stat().st_ino == inode
        assert lock.path.stat().st_mode & 0o777 == 0o600


def test_what_stands_in_the_place_of_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "MyWorker.lock").mkdir()
    with instance_lock("MyWorker", tmp_path) as lock, pytest.raises(StoreError, match=r"MyWorker\.lock cannot be used"):
        lock.try_acquire()


def test_without_a_folder_the_lock_is_in_the_one_place_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "lock_folder", lambda: tmp_path / "locks")
    with instance_lock("MyWorker") as lock:
        assert lock.path == tmp_path / "locks" / "MyWorker.lock"


WORKER = """
import sys
from kepm_plugin.instance import Launcher
launcher = Launcher.remember(platform=sys.argv[1])
print(launcher.gone(), flush=True)
sys.stdin.readline()
print(launcher.gone(), flush=True)
"""
LAUNCH = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]]).wait()
"""


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_the_end_of_the_launcher_is_noticed(platform: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCH, WORKER, platform], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "False\n"
        launcher.kill()
        launcher.wait(5)
        launcher.stdin.write("\n")
        launcher.stdin.flush()
        assert launcher.stdout.readline() == "True\n"


def test_the_launcher_of_this_process_is_there() -> None:
    assert not Launcher.remember().gone()


def test_a_job_task_is_refused_with_its_own_exit_code() -> None:
    refuse_job({})
    refuse_job({"KEEPER_JOB_ID": ""})
    with pytest.raises(StartedAsJob, match=r"job 'nightly'.*not as both") as caught:
        refuse_job({"KEEPER_JOB_ID": "nightly"})
    assert caught.value.exit_code == 75
    assert isinstance(caught.value, InstanceError)


# --- an orphan that keeps the lock ------------------------------------------------------------------------------------

LAUNCHED = """
import signal, sys, time
from pathlib import Path
from kepm_plugin.instance import instance_lock
signal.signal(signal.SIGCONT, lambda *_: print("woken", flush=True))
with instance_lock("MyWorker", Path(sys.argv[1])) as lock:
    assert lock.try_acquire()
    print(__import__("os").getpid(), flush=True)
    while True:
        time.sleep(60)
"""


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Standby:
    """A holder, its launcher, and the copy that waits for its end."""

    launcher: subprocess.Popen[str]
    holder: psutil.Process
    record: Path
    clock: Clock
    succession: Succession

    def orphan(self) -> None:
        """End the launcher, and return when the holder has another parent."""
        self.launcher.kill()
        self.launcher.wait(5)
        while self.holder.ppid() == self.launcher.pid:
            pass

    def passes(self, seconds: float, step: float = LOOK) -> None:
        """Let time pass for the copy that stands by."""
        for _ in range(round(seconds / step)):
            self.clock.now += step
            self.succession.press()

    def lives(self) -> bool:
        return look(self.holder.pid) is not None


@pytest.fixture
def standby(tmp_path: Path) -> Generator[Standby]:
    command = [sys.executable, "-c", LAUNCH, LAUNCHED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        holder = psutil.Process(int(launcher.stdout.readline()))
        try:
            clock, record = Clock(), tmp_path / "MyWorker.holder"
            yield Standby(launcher, holder, record, clock, Succession(record, clock))
        finally:
            launcher.kill()
            with suppress(psutil.Error):
                holder.kill()


def until_state(process: psutil.Process, *states: str) -> None:
    deadline = time.monotonic() + 5
    while process.status() not in states:
        assert time.monotonic() < deadline, process.status()


def test_an_orphan_that_is_stopped_is_woken_and_left_to_give_way(standby: Standby) -> None:
    standby.orphan()
    standby.holder.suspend()
    until_state(standby.holder, psutil.STATUS_STOPPED)
    standby.passes(2 * LOOK)
    assert standby.launcher.stdout is not None
    assert standby.launcher.stdout.readline() == "woken\n"
    until_state(standby.holder, psutil.STATUS_SLEEPING)


def test_an_orphan_without_a_sign_of_life_is_killed(standby: Standby, caplog: pytest.LogCaptureFixture) -> None:
    standby.orphan()
    standby.passes(SILENCE)
    assert standby.lives()
    standby.passes(2 * LOOK)
    with suppress(psutil.NoSuchProcess):
        standby.holder.wait(5)
    assert not standby.lives()
    [said] = caplog.records
    assert (said.message, said.__dict__["holder"]) == ("standby.killed", standby.holder.pid)
    with instance_lock("MyWorker", standby.record.parent) as lock:
        assert lock.try_acquire()
    standby.passes(SILENCE * 2)  # its record is that of the new holder, and later of nobody


def test_an_orphan_that_serves_is_left_alone(standby: Standby) -> None:
    """Who launched it may have done nothing else."""
    standby.orphan()
    for mark in range(10):
        os.utime(standby.record, (mark, mark))
        standby.passes(SILENCE)
    assert standby.lives()


def test_a_machine_that_slept_has_given_an_orphan_no_time(standby: Standby) -> None:
    standby.orphan()
    standby.passes(3600 * SILENCE, step=3600)
    assert standby.lives()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_whose_launcher_lives_is_left_alone(standby: Standby, state: str) -> None:
    if state == "stopped":
        standby.holder.suspend()
        until_state(standby.holder, psutil.STATUS_STOPPED)
    standby.passes(SILENCE * 4)
    assert standby.lives()
    if state == "stopped":
        assert standby.holder.status() == psutil.STATUS_STOPPED


@pytest.mark.parametrize("field", ["started", "command", "owner", "pid", "machine", "form", "missing"])
def test_what_is_not_on_record_is_left_alone(standby: Standby, field: str) -> None:
    standby.orphan()
    record: dict[str, Any] = json.loads(standby.record.read_text())
    others: dict[str, Any] = {"started": 1.0, "command": ["sh"], "owner": "another", "pid": os.getpid()}
    if field in others:
        record["holder"][field] = others[field]
    elif field == "machine":
        record["machine"] = "another"
    elif field == "form":
        del record["holder"]["pid"]
    standby.record.write_text(json.dumps(record))
    if field == "missing":
        standby.record.unlink()
    standby.passes(SILENCE * 2)
    assert standby.lives()


def test_the_record_is_the_owners_alone_and_a_mark_renews_it(tmp_path: Path) -> None:
    with instance_lock("MyWorker", tmp_path) as lock:
        assert lock.try_acquire()
        record = tmp_path / "MyWorker.holder"
        assert record.stat().st_mode & 0o777 == 0o600
        os.utime(record, (1, 1))
        lock.mark()
        assert record.stat().st_mtime > 1
        lock.press()  # what it holds itself it does not press
        record.unlink()
        lock.mark()


def test_a_record_that_cannot_be_written_costs_no_lock(tmp_path: Path) -> None:
    (tmp_path / "MyWorker.new").mkdir()
    with instance_lock("MyWorker", tmp_path) as lock:
        assert lock.try_acquire()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_process_is_seen_alike_on_every_system(standby: Standby, platform: str) -> None:
    seen = look(standby.holder.pid, platform=platform)
    assert seen is not None
    assert (seen.pid, seen.parent, seen.stopped) == (standby.holder.pid, standby.launcher.pid, False)
    assert list(seen.command) == standby.holder.cmdline()
    standby.holder.suspend()
    until_state(standby.holder, psutil.STATUS_STOPPED)
    again = look(standby.holder.pid, platform=platform)
    assert again is not None
    assert again.stopped
    assert seen.same(again)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        until_state(psutil.Process(ended.pid), psutil.STATUS_ZOMBIE)
        assert look(ended.pid, platform=platform) is None
    assert look(ended.pid, platform=platform) is None


def test_a_signal_reaches_only_the_process_that_was_seen(standby: Standby) -> None:
    seen = look(standby.holder.pid)
    assert seen is not None
    assert not send(replace(seen, started=seen.started + 1), signal.SIGKILL)
    assert standby.lives()
    assert send(seen, signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert not send(replace(seen, pid=ended.pid), signal.SIGKILL)
