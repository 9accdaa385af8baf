"""What a blocked event loop does to a plugin and its connection, measured with real processes.

    python -m tests.e2e.stall_long [mosquitto|nats]...

prints a table of stalls as long as the framework promises to survive. `test_stall.py` has shorter ones.
"""

import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.agent_process import PATIENCE, AgentProcess, agent_process
from tests.e2e.conftest import make_site
from tests.e2e.stall_plugin import Staller

NAMED: Final = {
    "loop": r"kepm-plugin: Spin\.handle \(.*has blocked the event loop",
    "later": r"kepm-plugin: Staller\.later \(.*has blocked the event loop",
    "held": r"Timeout \(0:00:0",
}
"""The first line of what names a blocking handler while it blocks."""

FRAME: Final = r"stall_plugin\.py\", line \d+,? in (handle|later)"
"""The line that says where it is."""

BLOCKED: Final = re.compile(r"loop\.blocked.*code=.?(?P<code>\w+\.\w+) .*seconds=(?P<seconds>[\d.]+)")

QUIET: Final = 74.0
"""Seconds without a packet after which a connection is one second short of its next ping."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one stall did."""

    seconds: float
    """How long the handler blocked, by its own clock."""
    named_after: float
    """Seconds until its stack was on standard error."""
    logged: float
    """Seconds that the log gives for it afterwards."""
    survived: bool
    """The process and its connection are those of before."""
    others: int
    """Commands for another handler that were sent during the stall and answered after it."""


def staller(folder: Path, engine: str, *, quiet: bool = False) -> AbstractContextManager[AgentProcess]:
    """An agent that runs the plugin."""
    site = make_site(folder, kind=Staller, file="stall_plugin.py")
    env = {"STALLER_QUIET": "1"} if quiet else {}
    return agent_process(site.root, "--broker", engine, env=env)


def measure(agent: AgentProcess, kind: str, seconds: float, *, quiet_before: float = 0.0, others: int = 3) -> Figures:
    """Have a handler block for so long, and tell what came of it."""
    pid = agent.control.send("Staller", "echo", timeout=10)["result"]["pid"]
    request: dict[str, Any] = {"seconds": seconds}
    if kind == "later":
        request["wait"] = quiet_before
    elif kind == "held":
        request = {"length": agent.control.send("Staller", "calibrate", request, timeout=30)["result"]}
    links, mark = len(agent.lines(r"^Staller .*link\.up")), agent.mark()
    patience = 2 * seconds + PATIENCE
    blocking = _Asked(partial(agent.control.send, "Staller", f"block/{kind}", request, timeout=patience))
    agent.until(r"^Staller +noted: blocks", after=mark, timeout=quiet_before + PATIENCE)
    began = time.monotonic()
    agent.until(NAMED[kind], after=mark)
    agent.until(FRAME, after=mark)
    named_after = time.monotonic() - began
    assert not agent.lines(r"^Staller +noted: goes on", after=mark), "named only when it was over"
    asked = [
        _Asked(partial(agent.control.send, "Staller", "echo", {"number": number}, timeout=patience))
        for number in range(others)
    ]
    took = float(blocking.answer()["result"])
    logged = BLOCKED.search(agent.until(BLOCKED.pattern, after=mark, timeout=patience).string)
    assert logged is not None
    answered = [answer["result"]["number"] for answer in (one.answer() for one in asked) if answer["ok"]]
    survived = (
        agent.control.send("Staller", "echo", timeout=10)["result"]["pid"] == pid
        and len(agent.lines(r"^Staller .*link\.up")) == links
        and not agent.lines(r"^Staller .*disconnected", after=mark)
    )
    return Figures(took, named_after, float(logged["seconds"]), survived, len(set(answered)))


class _Asked:
    """A command whose answer comes later."""

    def __init__(self, send: Callable[[], dict[str, Any]]) -> None:
        self._send = send
        self._answer: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="asked")
        self._thread.start()

    def _run(self) -> None:
        self._answer = self._send()

    def answer(self) -> dict[str, Any]:
        self._thread.join(200)
        return self._answer


def main(engines: list[str]) -> None:
    """Print the table."""
    print("engine     handler                        blocked   named after  in the log  connection  others went on")
    for engine in engines or ["mosquitto", "nats"]:
        for kind, seconds, quiet in (("loop", 30.0, 0.0), ("held", 5.0, 0.0), ("later", 30.0, QUIET)):
            with (
                tempfile.TemporaryDirectory() as folder,
                staller(Path(folder), engine, quiet=bool(quiet)) as agent,
            ):
                found = measure(agent, kind, seconds, quiet_before=quiet)
            words = {
                "loop": "while True, in Python",
                "later": f"the same, {quiet:g} s quiet before",
                "held": "a call in C, holding the GIL",
            }[kind]
            survived = "survived" if found.survived else "lost"
            print(
                f"{engine:<10} {words:<30} {found.seconds:6.2f} s   {found.named_after:8.2f} s  {found.logged:8.2f} s"
                f"  {survived:<10}  {found.others} of 3",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
