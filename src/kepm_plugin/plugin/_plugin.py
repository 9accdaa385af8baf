"""`Plugin`: the class that authors subclass. Its attributes are the manifest, its methods the plugin's life."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, get_origin

from ..contract import PLATFORMS
from ..errors import PluginDefinitionError, UndeclaredTopic
from ..message import Publication, encode
from ..settings import Change, Settings
from ..topics import check_filter, check_topic, covers
from ._checks import HOOKS, check_class, check_values
from ._declarations import Declarations, declare
from ._draft import Draft
from ._handler import HandlerSpec
from ._publish import Declared, Host, Subscription, Wait
from ._registration import Registration
from ._snapshot import Snapshot
from ._values import Gap


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
    outbox: ClassVar[Literal["memory", "disk"]] = "memory"
    """Where publications at QoS 1 and 2 wait for the broker; on disk they survive the end of the process."""
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

    if TYPE_CHECKING:
        settings: Any
        """A snapshot, one object for the whole of a handler's call; annotate it with your class of `Settings`."""
    else:
        settings = Snapshot()
    host: Host
    """What runs this plugin; the framework's affair."""

    _own_handlers: ClassVar[list[HandlerSpec]] = []
    _pending: ClassVar[list[Registration[Any]]] = []
    _abstract: ClassVar[bool] = True

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._own_handlers = []
        cls._pending = []
        cls._abstract = abstract
        check_class(cls, *_NAMES)
        if not abstract:
            check_values(cls)
        # A mixin's attributes become this class's: only a plugin has an id for their topics.
        for base in (one for one in cls.__mro__ if one is cls or not issubclass(one, Plugin)):
            for name, value in vars(base).items():
                if isinstance(value, Declared):
                    value.bind(cls, name)

    @classmethod
    def topic(cls, topic: str) -> Registration[Self]:
        """Register a handler class for a topic, relative to the plugin's id; `""` is the primary topic.

        `{name}` stands for one level, a last `{name:path}` for the rest, which may be empty; their values are in
        `message.params`. A leading slash makes the topic absolute. One handler takes a message, the most specific one.

        Raises:
            PluginDefinitionError: Topic or handler is wrong; the message has the remedy.
        """
        return Registration(cls._registering(), topic, command=False)

    @classmethod
    def command(cls, command: str) -> Registration[Self]:
        """Register a handler class for `Commands/<command>`; its result is published on `Responses/<command>`.

        A command has parameters as a topic has: `scan/{host}` is answered on `Responses/scan/{host}`, host by host.

        Raises:
            PluginDefinitionError: Command or handler is wrong; the message has the remedy.
        """
        return Registration(cls._registering(), command, command=True)

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
    def pending_registrations(cls) -> list[Registration[Any]]:
        """Return what `topic` and `command` gave and has not been put above a class yet."""
        return cls._pending

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
            StoreError: With `outbox = "disk"`: the disk did not take it until the deadline.
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

    async def answer(self, ticket: str, result: object) -> None:
        """Answer a command whose handler has called `message.defer()`, in this run or an earlier one.

        `Rejected("why")` as the result answers no. The answer is kept until the broker has it.

        Raises:
            UnknownTicket: It was answered already, has expired, or is none of this plugin's.
            BadPayload: JSON cannot carry the result.
        """
        await self.host.answer(ticket, result)

    @asynccontextmanager
    async def edit_settings(self) -> AsyncGenerator[Any]:
        """Change settings: assign to attributes of the yielded draft; what differs is written at the end, as a whole.

        The agent stores each value until the settings are reverted. Rolling back stores the old ones, as there is no
        way to remove a value.

        Raises:
            SettingsError: A value breaks a rule; nothing was written.
            SettingsConflict: Somebody else has changed one of these settings; `settings` has what there is now, so that
                it can be tried again.
            SettingsReadOnly: The agent lets this plugin read its settings but not write them.
            AgentError: The agent refused or could not be reached; what was written was rolled back, or will be as soon
                as the agent lets it be.
        """
        before: Settings = self.settings
        draft = Draft(before)
        yield draft
        if changes := Draft.changes(draft):
            await self.host.write_settings(before, changes)

    async def revert_settings(self) -> Change[Any] | None:
        """Have the agent go back to the values in the plugin's file; return what that has changed, if anything.

        Raises:
            AgentError: The agent refused or could not be reached.
            SettingsError: The file breaks a rule; the last good settings stay in force.
        """
        return await self.host.revert_settings()

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings (`KeeperPrivilegeManager`), every value a string.

        Raises:
            AgentError: The agent refused or could not be reached.
        """
        return await self.host.agent_settings()

    async def agent_setting(self, key: str) -> str:
        """Return one of the agent's own merged settings, as in `await self.plugin.agent_setting("log.file.path")`.

        Raises:
            UnknownPlugin: The agent has no such setting.
            BadAgentAnswer: It answers in another form than the contract's `value_fields` says (docs/contract.md).
            AgentError: The agent refused or could not be reached.
        """
        return await self.host.agent_setting(key)

    @classmethod
    def _registering(cls) -> "type[Self]":
        if cls is Plugin:
            raise PluginDefinitionError("Plugin itself has no handlers; register them on your own subclass of it")
        return cls

    def _complete(self, topic: str) -> str:
        if topic.startswith("/"):
            return topic[1:]
        return f"{self.id}/{topic}" if topic else self.id


_OWN = {name for name in (*vars(Plugin), *vars(Plugin)["__annotations__"]) if not name.startswith("_")} - set(HOOKS)
_ATTRIBUTES = {name for name, kind in vars(Plugin)["__annotations__"].items() if get_origin(kind) is ClassVar} & _OWN
_NAMES = _ATTRIBUTES, _OWN - _ATTRIBUTES
"""What an author may set, and what is the framework's alone."""
