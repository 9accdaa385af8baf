"""`hosted()`: a plugin that runs against an agent and a broker in memory."""

import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from uuid import uuid4

import anyio
import anyio.lowlevel

from kepm_plugin.contract import (
    ASSUMED,
    LOGGER_TOPIC,
    command_topic,
    link_topic,
    response_topic,
    status_topic,
)
from kepm_plugin.errors import NoAnswer, PayloadMismatch, SettingsError, UsageError
from kepm_plugin.link import Deliver, Session
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication, decode_json, encode, encode_json
from kepm_plugin.plugin import HandlerRoute, Plugin, check_types
from kepm_plugin.runtime import Outcome, Serving, Surroundings
from kepm_plugin.store import memory_store, open_store
from kepm_plugin.topics import Router, matches

from ._agent import MemoryAgent, Setting, check_keys, check_secrets, listed, text
from ._failures import Failed, Failures, complaint
from ._memory import MemoryBroker

P = TypeVar("P", bound=Plugin)
T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that one call of a test waits, whatever else happens meanwhile."""

GRACE = 1.0
"""Seconds that a plugin has to stop after its test has failed; then it is cut off."""


class Hosted(Generic[P]):
    """A running plugin, and the world around it as a test sees it.

    Topics are relative to the plugin's id, or absolute with a leading slash, as in the plugin itself. Whatever does not
    come within five seconds is an error.
    """

    def __init__(self, serving: Serving, agent: MemoryAgent, broker: MemoryBroker, stop: anyio.Event) -> None:
        self._serving, self.agent, self.broker, self._stop = serving, agent, broker, stop
        self._seen: list[Publication] = []
        self._sent: list[Publication] = []
        self._more = anyio.Event()
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope(shield=True)
        self.failures = Failures(self._changed)
        self.outcome: Outcome | None = None
        """How the run ended, after `stop()`."""
        broker.watch(self._saw)
        commands = [route.filter for route in serving.declarations.handlers if route.response is not None]
        self.failures.is_command = lambda topic: any(matches(one, topic) for one in commands)

    @property
    def plugin(self) -> P:
        """The running plugin."""
        return cast("P", self._serving.plugin)

    @property
    def errors(self) -> list[Failed]:
        """What failed in the plugin so far, in order; once looked at, it does not fail the test.

        That is what handlers, ticks, background methods and hooks raised, a handler's timeout, and a message whose
        payload did not fit. A `Rejected` is no failure, nor is a command that does not fit: its caller was told why.
        """
        return self.failures.look()

    async def until_errors(self, count: int = 1) -> list[Failed]:
        """Wait until so many things failed in the plugin, and return them as `errors` does.

        Raises:
            NoAnswer: They did not.
        """

        def enough() -> list[Failed] | None:
            found = self.errors
            return found if len(found) >= count else None

        return await self._until(enough, lambda: f"only {len(self.errors)} of {count} failure(s)")

    async def command(self, command: str, payload: object = None, /, **fields: object) -> dict[str, Any]:
        """Send a command and return its answer: `{"ok": True, "result": …}` or `{"ok": False, "error": …}`.

        Give the request as one value that JSON carries as an object, or field by field.

        Raises:
            UsageError: The plugin has no such command.
            NoAnswer: None came.
        """
        body: object = {} if payload is None else decode_json(encode_json(payload))
        if not isinstance(body, dict):
            raise TypeError(f"a command's payload is an object, not {type(payload).__name__}; use publish() for others")
        handler = self._handler_of(command)
        correlation = uuid4().hex
        request = cast("dict[str, object]", body) | fields | {ASSUMED.correlation_field: correlation}
        topic = response_topic(self.plugin.id, command)
        self._send(Publication(command_topic(self.plugin.id, command), encode_json(request)))

        def answer() -> dict[str, Any] | None:
            for publication in self._seen:
                if publication.topic == topic:
                    found = decode_json(publication.payload)
                    if found.get(ASSUMED.correlation_field) == correlation and not ASSUMED.is_interim(found):
                        return cast("dict[str, Any]", found)
            return None

        return await self._until(answer, lambda: f"{handler} has the command, but no answer on {topic!r}")

    async def publish(self, topic: str, payload: object, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as somebody else would."""
        self._send(Publication(self._complete(topic), encode(payload), qos, retain))
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

        def enough() -> list[Any] | None:
            found = self.published(topic)
            return found if len(found) >= count else None

        missing = f"message(s) on {self._complete(topic)!r}"
        return await self._until(enough, lambda: f"only {len(self.published(topic))} of {count} {missing}")

    async def change_setting(self, key: str, value: Setting) -> None:
        """Change a setting at the agent, as an operator does; the plugin has taken it on return.

        Settings of the framework's own, as `kepm.log.level`, are changed in the same way.

        Raises:
            UsageError: Neither the plugin nor the framework has such a setting.
            SettingsError: The plugin refuses it, and keeps its last good settings.
        """
        check_keys(self._serving.declarations.settings_type, (key,))
        self.agent.stored[key] = text(value)
        with self.failures.here():
            await self._serving.settings.refresh()
        for refused, reason in self._serving.knobs.refused.items():
            if refused.casefold() == key.casefold():
                raise SettingsError(reason, key=refused)

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
        """Run the plugin until it is asked to stop; `hosted` does this.

        Shielded, so that it is asked to stop and not cut off where the test is cancelled, or fails.
        """
        try:
            with self._scope, self.failures.here():
                self.outcome = await self._serving.run()
        finally:
            self._ended.set()

    def end(self, *, failed: bool) -> None:
        """Ask the plugin to stop at the end of the test; `hosted` does this."""
        self._stop.set()
        if failed:
            self._scope.deadline = anyio.current_time() + GRACE

    def _complete(self, topic: str) -> str:
        if topic.startswith("/"):
            return topic[1:]
        return f"{self.plugin.id}/{topic}" if topic else self.plugin.id

    def _saw(self, publication: Publication) -> None:
        self._seen.append(publication)
        self._changed()

    def _changed(self) -> None:
        self._more.set()
        self._more = anyio.Event()

    def _send(self, publication: Publication) -> None:
        self._sent.append(publication)
        self.broker.route(publication)

    async def _until(self, look: Callable[[], T | None], found: Callable[[], str]) -> T:
        """Look again at each publication; there is one deadline, however much is published meanwhile."""
        with anyio.move_on_after(TIMEOUT):
            while (value := look()) is None:
                await self._more.wait()
            return value
        ours = (LOGGER_TOPIC, link_topic(self.plugin.id), status_topic(self.plugin.id))
        theirs = [one for one in self._seen if one.topic not in ours and all(one is not sent for sent in self._sent)]
        topics = ", ".join(sorted({one.topic for one in theirs})) or "nothing"
        raise NoAnswer(f"{found()} came within {TIMEOUT:g} s; published by the plugin so far: {topics}")

    def _handler_of(self, command: str) -> str:
        """Return the name of the handler that takes a command."""
        routes = self._serving.declarations.handlers
        topic = command_topic(self.plugin.id, command)
        taken = Router[HandlerRoute]((route.filter, route) for route in routes).find(topic)
        if taken is not None and taken.spec.command is not None:
            return taken.spec.name
        if taken is not None:
            raise UsageError(
                f"{taken.spec.name} takes {topic!r} without an answer; use publish(), or make it a command"
            )
        known = [route.spec.command for route in routes if route.spec.command is not None]
        raise UsageError(f"no handler takes {topic!r}; its commands: {listed(known, command)}")


@asynccontextmanager
async def hosted(
    plugin: type[P],
    *,
    settings: Mapping[str, Setting] | None = None,
    data_dir: Path | None = None,
    strict: bool = True,
) -> AsyncGenerator[Hosted[P]]:
    """Run a plugin in memory while the context is open; it has subscribed when the context begins.

    At the end the plugin is asked to stop. A test that fails does so with its own error, and the plugin has one second
    to stop. One that passes fails all the same when something failed in the plugin that the test has not looked at, see
    `Hosted.errors`: a handler that raised must not leave a test green.

    Types are checked as they are not at an agent: a publisher that is given another type than its own raises
    BadPayload, and so does a command's handler that returns another one than it is annotated with.

    Args:
        plugin: The class, with all its handlers registered.
        settings: What the plugin's file holds, by key at the agent.
        data_dir: Keeps the journal in files there; in memory unless given.
        strict: False lets the test pass whatever failed in the plugin.

    Raises:
        TypeError: `plugin` is no plugin class.
        UsageError: `settings` has a key that neither the plugin nor the framework has.
        PluginDefinitionError: The plugin's declarations are wrong.
        SettingsError: `settings` breaks a rule of the plugin's settings.
        AssertionError: At the end, where `strict`: what failed in the plugin unseen.
    """
    given: object = plugin
    if not (isinstance(given, type) and issubclass(given, Plugin)):
        raise TypeError(f"hosted() takes the class of a plugin, as in hosted(MyPlugin), not {plugin!r}")
    check_keys(plugin.declarations().settings_type, settings or {})
    check_secrets(plugin.declarations().settings_type, settings or {})
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
        check_types(serving.plugin)
        host = Hosted[P](serving, agent, broker, stop)
        body: BaseException | None = None
        error: BaseException | None = None
        try:
            with host.failures.collecting():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(host.run, name="kepm.hosted")
                    passed = False
                    try:
                        await serving.uplink.serving.wait()
                        yield host
                        passed = True
                    finally:
                        body = None if passed else sys.exc_info()[1]
                        host.end(failed=not passed)
        except BaseExceptionGroup as group:
            error = _told(body, group)
        unseen = host.failures.unseen() if strict else ()
        if error is None and unseen:
            error = complaint(unseen)
        elif error is not None and error is body and unseen:
            error.add_note("\n".join(["In the plugin failed:", *(f"  {one}" for one in unseen)]))
        if error is not None:  # Here, where it keeps the context that it has.
            raise error


def _told(body: BaseException | None, group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what comes out of `hosted`: the test's own error as itself, else that of the plugin that ended it."""
    cancelled = anyio.get_cancelled_exc_class()
    if body is not None and not isinstance(body, cancelled) and group.subgroup(cancelled) is None:
        return body
    return group.exceptions[0] if len(group.exceptions) == 1 else group


def _value(payload: bytes) -> Any:
    try:
        return decode_json(payload)
    except PayloadMismatch:
        return payload
