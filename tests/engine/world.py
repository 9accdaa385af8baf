"""A plugin in memory whose surroundings a test makes: what `hosted()` takes for granted can be missing here."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, asynccontextmanager, nullcontext
from io import StringIO
from typing import Any, cast

import anyio

from kepm_plugin import Plugin
from kepm_plugin.contract import ASSUMED
from kepm_plugin.eventloop import bare_task_group
from kepm_plugin.link import Deliver, Session
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication
from kepm_plugin.runtime import Outcome, Serving, Surroundings
from kepm_plugin.store import Limits, Store, memory_store
from kepm_plugin.testing import MemoryAgent, MemoryBroker

JSON = dict[str, Any]


def fresh(**attributes: Any) -> type[Plugin]:
    """Return a plugin without handlers."""
    return type("P", (Plugin,), {"id": "P", **attributes})


class World:
    """One run of a plugin, and everything around it."""

    def __init__(
        self,
        kind: type[Plugin],
        *,
        settings: Mapping[str, str] | None = None,
        store: Store | None = None,
        agent: Any = None,
        connect: Callable[..., AbstractAsyncContextManager[Session]] | None = None,
        **around: Any,
    ) -> None:
        self.agent: MemoryAgent = agent or MemoryAgent(kind.id, settings or {})
        self.broker = MemoryBroker()
        self.published: list[Publication] = []
        self.places: list[tuple[str, int]] = []
        self.launcher_gone = False
        self.lock_free = True
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.lines = StringIO()
        """What people would read."""
        self._kind, self._store, self._around, self._connect = kind, store, around, connect
        self._stop, self._ended, self._changed = anyio.Event(), anyio.Event(), anyio.Event()
        self._serving: Serving | None = None
        self.broker.watch(self._saw)

    @property
    def serving(self) -> Serving:
        assert self._serving is not None
        return self._serving

    @property
    def plugin(self) -> Any:
        return self.serving.plugin

    def _given_store(self, *, limits: Limits) -> AbstractContextManager[Store | None]:
        return nullcontext(self._store)

    def _saw(self, publication: Publication) -> None:
        self.published.append(publication)
        self._changed.set()
        self._changed = anyio.Event()

    def _open_session(
        self, host: str, port: int, will: Publication | None, deliver: Deliver
    ) -> AbstractAsyncContextManager[Session]:
        self.places.append((host, port))
        connect = self._connect or self.broker.connect
        return connect(self._kind.id, deliver, clean=self._kind.clean_session, will=will)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["World"]:
        """Run the plugin, and stop it at the end."""
        pipe = LogPipe()
        with ExitStack() as stack:
            secrets: Callable[[], frozenset[str]] = lambda: self._serving.secrets() if self._serving else frozenset()  # noqa: E731
            logs = stack.enter_context(logging_to(pipe, source="P", secrets=secrets, fallback=self.lines))
            given: dict[str, Any] = {
                "agent": self.agent,
                "open_session": self._open_session,
                "open_store": memory_store if self._store is None else self._given_store,
                "pipe": pipe,
                "logs": logs,
                "contract": ASSUMED,
                "stop": self._stop,
                "try_lock": lambda: self.lock_free,
                "orphaned": lambda: self.launcher_gone,
                "start_budget": 0.0,
            }
            self._serving = Serving(self._kind, Surroundings(**given | self._around))
            async with bare_task_group() as tasks:
                tasks.start_soon(self._run, name="world")
                yield self
                self._stop.set()

    async def _run(self) -> None:
        try:
            self.outcome = await self.serving.run()
        except Exception as exc:  # noqa: BLE001  raised by `ended`
            self.error = exc
        finally:
            self._ended.set()

    async def run_to_the_end(self, do: Callable[[], object] = lambda: None, *, served: bool = True) -> None:
        """Run the plugin until it ends by itself, and raise why."""
        async with self.running():
            if served:
                await self.served()
                do()
            raise (await self.ended()).error or AssertionError("it ended as if it had been asked to")

    async def served(self) -> None:
        """Return when the plugin serves."""
        with anyio.fail_after(5):
            await self.serving.uplink.serving.wait()

    async def reconnected(self, do: Callable[[], object]) -> None:
        """Do something to the link; return when the plugin serves again."""
        up = self.serving.uplink.next_up()
        do()
        with anyio.fail_after(5):
            await up.wait()

    def stop(self) -> None:
        """Ask the plugin to stop."""
        self._stop.set()

    async def ended(self, within: float = 30) -> Outcome:
        """Return how the run ended, when it has; raise its error."""
        with anyio.fail_after(within):
            await self._ended.wait()
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    async def until(self, condition: Callable[[], object], within: float = 5) -> None:
        """Return when something holds that shows in what is published."""
        with anyio.fail_after(within):
            while not condition():
                await self._changed.wait()

    def on(self, topic: str) -> list[Any]:
        """Return what was published on a topic."""
        return [json.loads(each.payload) for each in self.published if each.topic == topic]

    def states(self) -> list[str]:
        """Return the states that were published."""
        return [cast("str", report["state"]) for report in self.on("P/Status")]

    def send(self, topic: str, payload: object = None, **fields: Any) -> None:
        """Publish as somebody else."""
        self.broker.route(Publication(topic, json.dumps({} if payload is None else payload).encode(), **fields))
