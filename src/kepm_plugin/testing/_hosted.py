"""`hosted()`: a plugin that runs against an agent and a broker in memory."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

import anyio
import anyio.lowlevel

from kepm_plugin.contract import ASSUMED, BROKER_HOST_KEY, BROKER_PORT_KEY, SYSTEM_PLUGIN, command_topic, response_topic
from kepm_plugin.errors import AgentRefused, NoAnswer, PayloadMismatch, UnknownPlugin
from kepm_plugin.eventloop import bare_task_group
from kepm_plugin.link import Deliver, Session
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication, decode_json, encode, encode_json
from kepm_plugin.plugin import Plugin
from kepm_plugin.runtime import Outcome, Serving, Surroundings
from kepm_plugin.store import memory_store, open_store
from kepm_plugin.topics import matches

from ._memory import MemoryBroker

P = TypeVar("P", bound=Plugin)

Setting = str | int | float | bool

TIMEOUT = 5.0
"""Seconds that a test waits for anything."""


class MemoryAgent:
    """The agent's settings API in memory: stored values over those of the plugin's file."""

    def __init__(self, plugin_id: str, file: Mapping[str, Setting]) -> None:
        self._id = plugin_id
        self._file = {key: _text(value) for key, value in file.items()}
        self.stored: dict[str, str] = {}
        """What was written, by the plugin or by the test."""
        self.system: dict[str, str] = {BROKER_HOST_KEY: "127.0.0.1", BROKER_PORT_KEY: "8675"}
        self.refusing = False
        """True answers everything with 403."""

    async def settings(self, plugin: str) -> dict[str, str]:
        """Return the merged settings."""
        self._check(plugin)
        return dict(self.system) if plugin == SYSTEM_PLUGIN else self._file | self.stored

    async def put_setting(self, plugin: str, key: str, value: Setting) -> None:
        """Write one setting."""
        self._check(plugin)
        self.stored[key] = _text(value)

    async def revert(self, plugin: str) -> None:
        """Go back to the file."""
        self._check(plugin)
        self.stored.clear()

    def _check(self, plugin: str) -> None:
        if self.refusing:
            raise AgentRefused("403: the agent in memory was told to refuse")
        if plugin not in (self._id, SYSTEM_PLUGIN):
            raise UnknownPlugin(f"404: the agent in memory has no plugin {plugin!r}")


class Hosted(Generic[P]):
    """A running plugin, and the world around it as a test sees it.

    Topics are relative to the plugin's id, or absolute with a leading slash, as in the plugin itself. Whatever does not
    come within five seconds is an error.
    """

    def __init__(self, serving: Serving, agent: MemoryAgent, broker: MemoryBroker, stop: anyio.Event) -> None:
        self._serving, self.agent, self.broker, self._stop = serving, agent, broker, stop
        self._seen: list[Publication] = []
        self._more = anyio.Event()
        self._ended = anyio.Event()
        self.outcome: Outcome | None = None
        """How the run ended, after `stop()`."""
        broker.watch(self._saw)

    @property
    def plugin(self) -> P:
        """The running plugin."""
        return cast("P", self._serving.plugin)

    async def command(self, command: str, payload: object = None, /, **fields: object) -> dict[str, Any]:
        """Send a command and return its answer: `{"ok": True, "result": …}` or `{"ok": False, "error": …}`.

        Give the request as one value that JSON carries as an object, or field by field.

        Raises:
            NoAnswer: None came.
        """
        body: object = {} if payload is None else decode_json(encode_json(payload))
        if not isinstance(body, dict):
            raise TypeError(f"a command's payload is an object, not {type(payload).__name__}; use publish() for others")
        correlation = uuid4().hex
        request = cast("dict[str, object]", body) | fields | {ASSUMED.correlation_field: correlation}
        self.broker.route(Publication(command_topic(self.plugin.id, command), encode_json(request)))
        topic = response_topic(self.plugin.id, command)
        while True:
            for publication in self._seen:
                if publication.topic == topic:
                    answer = decode_json(publication.payload)
                    if answer.get(ASSUMED.correlation_field) == correlation and "ok" in answer:
                        return cast("dict[str, Any]", answer)
            await self._wait(f"an answer on {topic!r}")

    async def publish(self, topic: str, payload: object, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as somebody else would."""
        self.broker.route(Publication(self._complete(topic), encode(payload), qos, retain))
        await anyio.lowlevel.checkpoint()

    def published(self, topic: str) -> list[Any]:
        """Return what was published on a topic or filter so far: JSON as values, everything else as bytes."""
        wanted = self._complete(topic)
        return [_value(publication.payload) for publication in self._seen if matches(wanted, publication.topic)]

    async def until_published(self, topic: str, count: int = 1) -> list[Any]:
        """Wait until so many messages were published on a topic or filter, and return them.

        Raises:
            NoAnswer: They were not.
        """
        while len(found := self.published(topic)) < count:
            await self._wait(f"{count} message(s) on {topic!r}")
        return found

    async def change_setting(self, key: str, value: Setting) -> None:
        """Change a setting at the agent, as an operator does; the plugin has taken it on return.

        Raises:
            SettingsError: The plugin refuses it, and keeps its last good settings.
        """
        self.agent.stored[key] = _text(value)
        await self._serving.settings.refresh()

    async def lose_link(self) -> None:
        """Cut the plugin's connection, and return when it serves again.

        Raises:
            NoAnswer: It does not.
        """
        linked = self._serving.uplink.next_up()
        self.broker.cut(self.plugin.id)
        with anyio.move_on_after(TIMEOUT):
            await linked.wait()
            return
        raise NoAnswer(f"the plugin did not reconnect within {TIMEOUT:g} s")

    async def stop(self) -> Outcome:
        """Ask the plugin to stop, as the agent does, and return how that went."""
        self._stop.set()
        await self._ended.wait()
        assert self.outcome is not None  # noqa: S101  set before the event
        return self.outcome

    async def run(self) -> None:
        """Run the plugin until it is asked to stop; `hosted` does this."""
        try:
            self.outcome = await self._serving.run()
        finally:
            self._ended.set()

    def _complete(self, topic: str) -> str:
        if topic.startswith("/"):
            return topic[1:]
        return f"{self.plugin.id}/{topic}" if topic else self.plugin.id

    def _saw(self, publication: Publication) -> None:
        self._seen.append(publication)
        self._more.set()
        self._more = anyio.Event()

    async def _wait(self, wanted: str) -> None:
        with anyio.move_on_after(TIMEOUT):
            await self._more.wait()
            return
        seen = ", ".join(sorted({publication.topic for publication in self._seen})) or "nothing"
        raise NoAnswer(f"{wanted} did not come within {TIMEOUT:g} s; published so far: {seen}")


@asynccontextmanager
async def hosted(
    plugin: type[P], *, settings: Mapping[str, Setting] | None = None, data_dir: Path | None = None
) -> AsyncGenerator[Hosted[P]]:
    """Run a plugin in memory while the context is open; it has subscribed when the context begins.

    Args:
        plugin: The class, with all its handlers registered.
        settings: What the plugin's file holds, by key at the agent.
        data_dir: Keeps the journal in files there; in memory unless given.

    Raises:
        PluginDefinitionError: The plugin's declarations are wrong.
        SettingsError: `settings` breaks a rule of the plugin's settings.
    """
    agent, broker, stop = MemoryAgent(plugin.id, settings or {}), MemoryBroker(), anyio.Event()
    serving: Serving | None = None

    def open_session(
        host: str, port: int, will: Publication | None, deliver: Deliver
    ) -> AbstractAsyncContextManager[Session]:
        return broker.connect(plugin.id, deliver, clean=plugin.clean_session, will=will)

    def secrets() -> frozenset[str]:
        return frozenset() if serving is None else serving.secrets()

    pipe = LogPipe()
    with logging_to(pipe, source=plugin.id, secrets=secrets, fallback=StringIO()) as logs:
        serving = Serving(
            plugin,
            Surroundings(
                agent=agent,
                open_session=open_session,
                open_store=memory_store if data_dir is None else partial(open_store, data_dir),
                pipe=pipe,
                logs=logs,
                contract=ASSUMED,
                stop=stop,
                try_lock=lambda: True,
                orphaned=lambda: False,
                start_budget=0.0,
            ),
        )
        host = Hosted[P](serving, agent, broker, stop)
        async with bare_task_group() as tasks:
            tasks.start_soon(host.run, name="kepm.hosted")
            await serving.uplink.serving.wait()
            yield host
            stop.set()


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(payload: bytes) -> Any:
    try:
        return decode_json(payload)
    except PayloadMismatch:
        return payload
