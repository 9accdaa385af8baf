"""A tiny process that ends what the agent started, should the agent be killed.

It reads lines from standard input, which only the agent holds open: `+engine PID`, `+plugin PID`, `-PID`,
`rmtree FOLDER`, `-rmtree FOLDER`. At the end of the input it ends what is still listed and removes the folders.
It is run by its path, and imports nothing but the standard library and psutil.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

GRACE = 3.0


def main(arguments: list[str]) -> None:
    """Watch until the agent is gone, then clean up; `--leave-plugins` ends the engine alone."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the agent's own end is what counts
        with suppress(AttributeError):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    engines: dict[int, psutil.Process] = {}
    plugins: dict[int, psutil.Process] = {}
    folders: dict[str, None] = {}
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word in ("+engine", "+plugin"):
            with suppress(psutil.Error):
                (engines if word == "+engine" else plugins)[int(rest)] = psutil.Process(int(rest))
        elif word == "rmtree":
            folders[rest] = None
        elif word == "-rmtree":
            folders.pop(rest, None)
        elif word.startswith("-"):
            engines.pop(int(word[1:]), None)
            plugins.pop(int(word[1:]), None)
    if "--leave-plugins" not in arguments:
        end(families(plugins.values()), GRACE)
    end(families(engines.values()), 0.0)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def families(leaders: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those of the processes that still run, and what else lives in the sessions that they led."""
    found: list[psutil.Process] = []
    sessions: set[int] = set()
    for leader in leaders:
        if leader.is_running():  # compares the start time too: a number may have been given away
            found.append(leader)
            sessions.add(leader.pid)
        elif not psutil.pid_exists(leader.pid):  # its number is not given away while members of its session live
            sessions.add(leader.pid)
    if sys.platform == "win32":
        return found + [child for leader in found for child in leader.children(recursive=True)]
    for pid in psutil.pids() if sessions else []:
        with suppress(psutil.Error, OSError):
            if pid not in sessions and os.getsid(pid) in sessions:
                found.append(psutil.Process(pid))
    return found


def end(processes: list[psutil.Process], grace: float) -> None:
    """Ask processes to end, and insist after `grace` seconds."""
    for process in processes if grace else []:
        with suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(lives(process) for process in processes):
        time.sleep(0.02)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()  # raises for one that is gone


def lives(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
