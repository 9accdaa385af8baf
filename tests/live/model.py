"""A plugin's settings over an agent that fails on demand, on a clock that needs no waiting."""

from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import trio
import trio.testing
from anyio.abc import TaskGroup

from kepm_plugin import Change, Settings, setting
from kepm_plugin.errors import AgentError, AgentUnreachable, BadAgentAnswer, SettingsError
from kepm_plugin.live import LiveOptions, LiveSettings, Told
from kepm_plugin.testing import MemoryAgent

FIRST: Final = 100
"""The number of the plugin's file. What is below is somebody else's."""
INTERVAL: Final = 5.0
KEYS: Final = ("a", "b", "c")
SECRET: Final = "hush-"


class Numbers(Settings):
    a: int = setting(default=FIRST)
    b: int = setting(default=FIRST)
    c: int = setting(default=FIRST)

    def validate(self) -> None:
        if self.a + self.b + self.c < 0:
            raise ValueError("the sum must not be negative")


class Guarded(Settings):
    """With a secret among them, of which no process knows what it was in the one before."""

    a: int = setting(default=FIRST)
    token: str = setting(secret=True)
    b: int = setting(default=FIRST)
    c: int = setting(default=FIRST)

    validate = Numbers.validate


FILE: Final[dict[str, Any]] = dict[str, Any].fromkeys(KEYS, FIRST)
GUARDED_FILE: Final[dict[str, Any]] = FILE | {"token": f"{SECRET}{FIRST}"}


class Killed(BaseException):
    """The process is gone, as far as it can tell."""


class Agent(MemoryAgent):
    """`faults` has one word for each PUT to come; what is `late` arrives when the test says so."""

    def __init__(self, file: Mapping[str, Any] | None = None) -> None:
        super().__init__("P", FILE if file is None else file)
        self.faults: list[str] = []
        self.late: list[tuple[str, Any]] = []
        self.requests: list[tuple[str, ...]] = []

    async def settings(self, plugin: str) -> dict[str, str]:
        self.requests.append(("GET",))
        return await super().settings(plugin)

    async def status(self, plugin: str) -> dict[str, object]:
        self.requests.append(("STATUS",))
        return {"settingsHash": repr(sorted((self._file | self.stored).items()))}

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        self.requests.append(("PUT", key))
        fault = self.faults.pop(0) if self.faults else ""
        if fault.startswith("late"):
            self.late.append((key, value))
        elif fault not in ("before", "killed before", "5xx", "lost"):
            await super().put_setting(plugin, key, value)
        if fault == "theirs":
            self.stored[key] = "7"
        if "killed" in fault:
            raise Killed
        if fault == "5xx":
            raise BadAgentAnswer("500: it failed", status=500)
        if fault in ("before", "after", "late"):
            raise AgentUnreachable("no answer")

    def arrive(self) -> None:
        """Carry out what was given up."""
        self.stored |= {key: str(value) for key, value in self.late}
        self.late.clear()

    def puts(self) -> list[str]:
        """Return the keys that were written."""
        return [request[1] for request in self.requests if request[0] == "PUT"]


class Process:
    """The agent, as one process has it: what is dead asks for nothing."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self.dead = agent, False

    async def _turn(self) -> Agent:
        await anyio.lowlevel.checkpoint()
        if self.dead:
            raise Killed
        return self._agent

    async def settings(self, plugin: str) -> dict[str, str]:
        return await (await self._turn()).settings(plugin)

    async def setting(self, plugin: str, key: str) -> str:
        return await (await self._turn()).setting(plugin, key)

    async def status(self, plugin: str) -> dict[str, object]:
        return await (await self._turn()).status(plugin)

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        await (await self._turn()).put_setting(plugin, key, value)

    async def revert(self, plugin: str) -> None:
        await (await self._turn()).revert(plugin)


class Plugin:
    """The settings of one plugin, through all its processes."""

    def __init__(
        self, tasks: TaskGroup, agent: Agent, folder: Path | None, kind: type[Settings] = Numbers, **options: Any
    ) -> None:
        self.agent, self.folder = agent, folder
        self.taken: list[Any] = []
        self.changes: list[tuple[float, Change[Any]]] = []
        self.troubles: list[str | None] = []
        self._outer, self._kind, self._options = tasks, kind, options
        self._watching: anyio.CancelScope | None = None
        self._process = Process(agent)
        self.live: LiveSettings

    async def start(self) -> None:
        """Start a process; the one before is gone."""
        self.kill()
        told = Told(taken=self.taken.append, changed=self._changed, trouble=self.troubles.append)
        options = LiveOptions(interval=lambda: INTERVAL, folder=self.folder, **self._options)
        self._process = Process(self.agent)
        self.live = LiveSettings(self._process, "P", self._kind, options, told)
        await self.live.start(lambda: self._process.settings("P"), lambda: None)
        self._watching = anyio.CancelScope()
        self._outer.start_soon(self._watch, self.live, self._watching)
        self.live.resume()

    def kill(self) -> None:
        """End the process."""
        self._process.dead = True
        if self._watching is not None:
            self._watching.cancel()

    async def _changed(self, change: Change[Any]) -> None:
        self.changes.append((anyio.current_time(), change))

    async def _watch(self, live: LiveSettings, scope: anyio.CancelScope) -> None:
        with scope, suppress(Killed):
            await live.watch()

    async def edit(self, **changes: Any) -> None:
        """Change attributes, as `edit_settings` does."""
        await self.live.write(self.live.current, changes)

    async def own(self, number: int, *faults: str) -> None:
        """Write a number to all keys, with faults; a process that was killed is started again."""
        self.agent.faults = list(faults)
        try:
            secret = {"token": f"{SECRET}{number}"} if self._kind is Guarded else {}
            await self.edit(**dict.fromkeys(KEYS, number), **secret)
        except (AgentError, SettingsError):
            pass
        except Killed:
            await self.restart()

    async def restart(self) -> None:
        """Start until it succeeds: a start that fails is made again by the agent."""
        for _ in range(10):
            try:
                await self.start()
            except (AgentError, SettingsError, Killed):
                continue
            return
        raise AssertionError("it does not start")

    @property
    def open_file(self) -> Path:
        assert self.folder is not None
        return self.folder / "settings.open.json"


def mixed(taken: list[Any]) -> list[Any]:
    """Return the snapshots that have numbers of two transactions, or break a rule."""

    def numbers(one: Any) -> tuple[int, ...]:
        secret = (int(one.token.removeprefix(SECRET)),) if isinstance(one, Guarded) else ()
        return one.a, one.b, one.c, *secret

    return [one for one in taken if len({n for n in numbers(one) if n >= FIRST}) > 1 or sum(numbers(one)[:3]) < 0]


def play(
    program: Callable[[Plugin], Coroutine[Any, Any, None]],
    folder: Path | None = None,
    kind: type[Settings] = Numbers,
    agent: Agent | None = None,
    plugin: type[Plugin] = Plugin,
    **options: Any,
) -> Plugin:
    """Run a program on a clock that jumps; return what it left."""

    async def main() -> Plugin:
        tasks = anyio.create_task_group()
        played = plugin(tasks, agent or Agent(), folder, kind, **options)
        with anyio.fail_after(100_000):
            async with tasks:
                await played.start()
                await program(played)
                tasks.cancel_scope.cancel()
        return played

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
