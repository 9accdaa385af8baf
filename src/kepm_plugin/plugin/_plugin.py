"""`Plugin`: the class that authors subclass. Its attributes are the manifest, its methods the plugin's life."""

import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from inspect import cleandoc
from typing import Any, ClassVar, Literal, NoReturn, Protocol, TypeVar

from ..contract import BUILT_IN_PLUGINS, COMMANDS_LEVEL, EXECUTION_CONTEXTS, PLATFORMS, REVERT_ALL
from ..errors import PluginDefinitionError, TopicClash, UndeclaredTopic
from ..message import Publication, encode
from ..settings import Change
from ..topics import Pattern, check_filter, check_topic, covers
from ._declarations import Declarations, declare
from ._handler import HandlerSpec, check_handler
from ._publish import Declared, Host, Subscription, Wait
from ._values import Gap

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
_RESERVED_IDS = {name.casefold() for name in (*BUILT_IN_PLUGINS, REVERT_ALL)}


_NOTHING = object()


class _Handles(Protocol):
    plugin: Any

    @property
    def handle(self) -> Callable[..., Any]: ...


H = TypeVar("H", bound=_Handles)


class Plugin:
    """A plugin of KEPM: subclass it, set `id`, register handlers, and call `main()`.

    The docstring of the subclass is the manifest's description. `class Base(Plugin, abstract=True)` shares code and
    handlers between plugins; their topics are resolved against each subclass's id.
    """

    id: ClassVar[str] = ""
    """Identity: file name of the manifest, key of the settings, first level of the topics (Plugin Guide)."""
    name: ClassVar[str] = ""
    """Display name; the id where it is empty."""
    version: ClassVar[str] = "0.0.0"
    """Semantic version, for diagnostics (Plugin Guide)."""
    platforms: ClassVar[Iterable[str]] = PLATFORMS
    """Of "Windows", "Linux", "macOS"."""
    startup_priority: ClassVar[int] = 60
    """Lower starts first; 60 suits a plugin that nobody depends on (Plugin Guide)."""
    auto_start: ClassVar[bool] = True
    requires_monitoring: ClassVar[bool] = True
    auto_restart: ClassVar[bool] = True
    execution_context: ClassVar[Literal["Service", "User", "Interactive"]] = "Service"
    qos: ClassVar[int] = 1
    """QoS of the subscriptions. At 2 a message that is half received is lost with the process."""
    journal: ClassVar[bool] = True
    """Write received messages to disk before they are acknowledged; otherwise acknowledge after the handler."""
    clean_session: ClassVar[bool] = True
    """False asks the broker to keep what is sent while the plugin is down."""
    heartbeat: ClassVar[float | None] = 30
    """Seconds between signals on `<Id>/Status`; None: that topic is not used at all."""
    echo: ClassVar[bool] = True
    """Prove the link by a message to ourselves on `<Id>/Link` when nothing else comes."""
    allow_publish: ClassVar[Iterable[str]] = ()
    """Topics for `publish()` besides those of the publishers, as patterns."""
    allow_subscribe: ClassVar[Iterable[str]] = ()
    """Topics for `subscribe()`, as patterns."""
    modules: ClassVar[Iterable[str]] = ()
    """Modules with further handlers, relative to the class's own, as in `(".handlers",)`."""
    link_budget: ClassVar[float] = 600.0
    """Seconds for which a lost link is restored, before the process ends so that the agent restarts it."""
    drain: ClassVar[float] = 10.0
    """Seconds that running handlers have to finish once the plugin is asked to stop."""
    settings_interval: ClassVar[float] = 5.0
    """Seconds between two looks at the settings."""

    settings: Any
    """The current snapshot, one frozen object; annotate it with your subclass of `Settings`."""
    host: Host
    """What runs this plugin; the framework's affair."""

    _own_handlers: ClassVar[list[HandlerSpec]] = []
    _abstract: ClassVar[bool] = True

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._own_handlers = []
        cls._abstract = abstract
        for name, value in list(vars(cls).items()):
            if isinstance(value, Declared):
                value.bind(cls, name)
        if not abstract:
            _check_attributes(cls)

    @classmethod
    def topic(cls, topic: str) -> Callable[[type[H]], type[H]]:
        """Register a handler class for a topic, relative to the plugin's id; `""` is the primary topic.

        Raises:
            PluginDefinitionError: Topic or handler is wrong; the message has the remedy.
        """
        return lambda handler: _register(cls, handler, topic, None)

    @classmethod
    def command(cls, command: str) -> Callable[[type[H]], type[H]]:
        """Register a handler class for `Commands/<command>`; its result is published on `Responses/<command>`.

        Raises:
            PluginDefinitionError: Command or handler is wrong; the message has the remedy.
        """
        return lambda handler: _register(cls, handler, f"{COMMANDS_LEVEL}/{command}", command)

    @classmethod
    def is_abstract(cls) -> bool:
        """Tell whether the class only shares code, and cannot run."""
        return cls._abstract

    @classmethod
    def handler_specs(cls) -> list[HandlerSpec]:
        """Return the registrations of the class and its bases, bases first."""
        return [spec for base in reversed(cls.__mro__) for spec in base.__dict__.get("_own_handlers", ())]

    @classmethod
    def add_handler(cls, spec: HandlerSpec) -> None:
        """Keep one checked registration; `topic` and `command` do this."""
        cls._own_handlers.append(spec)

    @classmethod
    def declarations(cls) -> Declarations:
        """Import the plugin's modules, then check and return all its declarations.

        Raises:
            PluginDefinitionError: What is wrong, with class, attribute and remedy.
        """
        return declare(cls)

    @classmethod
    def description(cls) -> str:
        """Return the docstring's first paragraph as one line."""
        return " ".join(cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())

    @classmethod
    def main(cls) -> NoReturn:
        """Run the command line of this plugin: without arguments `run`, also `gen-manifest` and `validate`."""
        # The one step upwards: the command line uses plugins, and only here a plugin asks for its command line.
        import_module("kepm_plugin.cli").plugin_main(cls)
        raise SystemExit(0)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Open before `yield` what the handlers need, close it after.

        Settings are there, publishing queues, and no message arrives before `yield`. A reconnect does not touch it.
        """
        yield

    async def on_settings_changed(self, change: Change[Any]) -> None:
        """Called after `settings` was replaced by a snapshot that differs."""

    async def on_reconnect(self, gap: Gap) -> None:
        """Called when the plugin serves again after the link was lost."""

    async def publish(
        self,
        topic: str,
        payload: object,
        *,
        qos: int = 1,
        retain: bool = False,
        wait: Wait = "queued",
        timeout: float | None = None,
    ) -> None:
        """Publish to a topic that the manifest declares: relative to the id, or absolute with a leading slash.

        Raises:
            UndeclaredTopic: The manifest does not declare it.
            BadTopic: It is no topic.
            BadPayload: The value cannot be encoded.
            Overloaded: The outbox stayed full until the deadline.
            LinkLost: With `wait="acknowledged"`: no acknowledgement until the deadline.
        """
        complete = self._complete(topic)
        check_topic(complete)
        declared = self.host.declarations.publish
        if not any(covers(one, complete) for one in declared):
            raise UndeclaredTopic(complete, declared)
        await self.host.publish(Publication(complete, encode(payload), qos, retain), wait=wait, timeout=timeout)

    def subscribe(self, topic_filter: str) -> AbstractAsyncContextManager[Subscription]:
        """Receive what an MQTT filter inside `allow_subscribe` brings, while the context is open.

        Relative to the id, or absolute with a leading slash. Messages that have a handler go to the handler too.

        Raises:
            UndeclaredTopic: The manifest does not declare it.
            BadTopic: It is no filter, or overlaps another subscription without being covered by it.
        """
        complete = self._complete(topic_filter)
        check_filter(complete)
        declared = self.host.declarations.subscribe
        if not any(covers(one, complete) for one in declared):
            raise UndeclaredTopic(complete, declared, action="subscribe to")
        return self.host.subscribe(complete)

    @asynccontextmanager
    async def edit_settings(self) -> AsyncGenerator[Any]:
        """Change settings: assign to attributes of the yielded draft; what differs is written at the end.

        Raises:
            SettingsError: A value breaks a rule; nothing was written.
            AgentError: The agent refused or could not be reached.
        """
        draft = _Draft(self.settings)
        yield draft
        changes: dict[str, Any] = {
            name: value
            for name, value in vars(draft).items()
            if name != "_settings" and value != getattr(self.settings, name, _NOTHING)
        }
        if changes:
            await self.host.write_settings(changes)

    async def revert_settings(self) -> None:
        """Have the agent go back to the values in the plugin's file.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        await self.host.revert_settings()

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings (`KeeperPrivilegeManager`), every value a string.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        return await self.host.agent_settings()

    def _complete(self, topic: str) -> str:
        if topic.startswith("/"):
            return topic[1:]
        return f"{self.id}/{topic}" if topic else self.id


def _register(owner: type[Plugin], handler: type[H], topic: str, command: str | None) -> type[H]:
    where = getattr(handler, "__qualname__", repr(handler))
    if owner is Plugin:
        raise PluginDefinitionError(f"{where}: register handlers on your own subclass of Plugin, not on Plugin itself")
    try:
        pattern = Pattern.parse(topic)
        if not owner.is_abstract():
            pattern.check_owner(owner.id)
    except PluginDefinitionError as exc:
        raise PluginDefinitionError(f"{where}: {exc}") from exc
    if command is not None and (command.startswith("/") or not command):
        raise PluginDefinitionError(f"{where}: a command is a name below {COMMANDS_LEVEL!r}, as in command('scan')")
    spec = check_handler(handler, pattern, command, owner)
    same = [one for one in owner.handler_specs() if one.pattern.filter("").casefold() == pattern.filter("").casefold()]
    if same:
        raise TopicClash(
            f"{where} and {same[0].name} both take {topic!r} of {owner.__name__}: one message has one handler; "
            "remove one of them, or give it another topic"
        )
    owner.add_handler(spec)
    return handler


def _check_attributes(cls: type[Plugin]) -> None:
    where = cls.__qualname__
    _check_id(where, cls.id)
    checks: list[tuple[str, bool, str]] = [
        (
            "version",
            bool(_VERSION.fullmatch(str(cls.version))),
            "a semantic version such as '1.0.0'",
        ),
        ("name", isinstance(cls.name, str), "a text"),
        ("execution_context", cls.execution_context in EXECUTION_CONTEXTS, f"one of {', '.join(EXECUTION_CONTEXTS)}"),
        ("startup_priority", _is_int(cls.startup_priority) and cls.startup_priority >= 0, "a whole number from 0"),
        ("qos", _is_int(cls.qos) and 0 <= cls.qos <= 2, "0, 1 or 2"),
        (
            "heartbeat",
            cls.heartbeat is None or _is_positive(cls.heartbeat),
            "seconds above 0, or None for no heartbeat",
        ),
        ("link_budget", _is_positive(cls.link_budget), "seconds above 0"),
        ("drain", _is_positive(cls.drain), "seconds above 0"),
        ("settings_interval", _is_positive(cls.settings_interval), "seconds above 0"),
        (
            "platforms",
            not isinstance(cls.platforms, str) and bool(set(cls.platforms)) and set(cls.platforms) <= set(PLATFORMS),
            f"a tuple of {', '.join(repr(one) for one in PLATFORMS)}",
        ),
    ]
    flags = ("auto_start", "requires_monitoring", "auto_restart", "journal", "clean_session", "echo")
    checks += [(flag, isinstance(getattr(cls, flag), bool), "True or False") for flag in flags]
    for attribute, good, wanted in checks:
        if not good:
            raise PluginDefinitionError(f"{where}.{attribute} is {getattr(cls, attribute)!r}; give {wanted}")


def _check_id(where: str, plugin_id: object) -> None:
    if not plugin_id:
        name = where.rpartition(".")[2]
        raise PluginDefinitionError(
            f"{where}.id is missing: set id = {name!r}, or declare 'class {name}(Plugin, abstract=True)' if it only "
            "shares code"
        )
    if not isinstance(plugin_id, str) or not _ID.fullmatch(plugin_id):
        # The id is a file name, a part of a URL, a topic level and part of a client id, which the broker splits on `_`.
        better = re.sub(r"[^A-Za-z0-9.-]+", "-", str(plugin_id)).strip("-.")[:64] or "MyPlugin"
        raise PluginDefinitionError(
            f"{where}.id is {plugin_id!r}; use 1 to 64 letters, digits, '-' and '.', without '_', '/', '+', '#' or "
            f"spaces, as in {better!r}"
        )
    if plugin_id.casefold() in _RESERVED_IDS:
        raise PluginDefinitionError(f"{where}.id is {plugin_id!r}, which the agent uses itself; choose another id")
    if plugin_id.casefold().partition(".")[0] in _WINDOWS_DEVICES:
        raise PluginDefinitionError(
            f"{where}.id is {plugin_id!r}, which Windows reserves as a file name; choose another id"
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


class _Draft:
    """Attributes of a settings object, open for assignment."""

    def __init__(self, settings: Any) -> None:
        object.__setattr__(self, "_settings", settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_settings"), name)
