import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from kepm_plugin import instance
from kepm_plugin.errors import InstanceError, StartedAsJob, StoreError
from kepm_plugin.instance import RETRY, InstanceLock, Launcher, instance_lock, refuse_job

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
