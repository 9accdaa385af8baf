"""`Publisher` and `Request`: what a plugin sends, declared as attributes, bound to the running plugin on access."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, cast, get_args, overload

from ..contract import ASSUMED
from ..errors import BadPayload, PluginDefinitionError
from ..message import Message, Publication, command_decoder, decoder, encode, encoder
from ..settings import Change, Settings
from ..topics import Pattern
from ._annotations import UnresolvedAnnotation, namespace, resolved
from ._patterns import check_owner, declared
from ._schedule import is_seconds

if TYPE_CHECKING:
    from ._declarations import Declarations
    from ._plugin import Plugin

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")

Wait = Literal["queued", "acknowledged"]
Subscription = AsyncIterator[Message[bytes]]

ARGUMENTS: Final = frozenset({"payload", "wait", "retain", "timeout"})
"""Names of our own arguments, which no level may have."""


class Host(Protocol):
    """What a running plugin needs of whatever runs it."""

    @property
    def declarations(self) -> "Declarations":
        """What the plugin declares."""
        ...

    async def publish(self, publication: Publication, *, wait: Wait, timeout: float | None) -> None:
        """Hand over to the outbox; wait for it, or for the broker's acknowledgement."""
        ...

    def publish_soon(self, publication: Publication) -> None:
        """Hand over to the outbox from any thread; drop and count where it is full."""
        ...

    async def request(self, topic: str, response: str, question: Any, answer_type: Any, timeout: float) -> Any:
        """Send a question and wait for the answer with its correlation id."""
        ...

    def subscribe(self, topic_filter: str) -> AbstractAsyncContextManager[Subscription]:
        """Receive what a filter brings while the context is open."""
        ...

    async def answer(self, ticket: str, result: object) -> None:
        """Answer a command that was deferred."""
        ...

    async def write_settings(self, before: Settings, changes: dict[str, Any]) -> None:
        """Write the attributes that changed since a snapshot as one transaction, and take the new one."""
        ...

    async def revert_settings(self) -> Change[Any] | None:
        """Have the agent go back to the plugin's file, take the new snapshot, and return what that has changed."""
        ...

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings."""
        ...

    async def agent_setting(self, key: str) -> str:
        """Return one of them."""
        ...


class Declared:
    """An attribute that declares topics; its class and name are filled in when the plugin class is made."""

    _owner: str = ""
    _home: type

    @property
    def owner(self) -> str:
        """Class and attribute, for messages to people."""
        return self._owner

    def bind(self, owner: type, name: str) -> None:
        """Take the name for messages to people, and check what can be checked at once.

        Raises:
            PluginDefinitionError: With class, attribute and remedy.
        """
        self._owner = f"{owner.__qualname__}.{name}"
        self._home = owner

    def check(self, owner: type) -> None:
        """Check, against the plugin class that runs, what had to wait: its id, and names from further down.

        Raises:
            PluginDefinitionError: With class, attribute and remedy.
        """
        for pattern in self._patterns():
            check_owner(self._owner, pattern, owner)
        self._take_types(self._types())

    def _patterns(self) -> tuple[Pattern, ...]:
        raise NotImplementedError

    def _take_types(self, types: tuple[Any, ...]) -> None:
        raise NotImplementedError

    def _pattern(self, text: str, owner: type) -> Pattern:
        pattern = declared(self._owner, text, owner)
        for name in pattern.params:
            if name in ARGUMENTS or iskeyword(name):
                raise PluginDefinitionError(f"{self._owner}: a level cannot be called {name!r}; choose another name")
        return pattern

    def _types(self) -> tuple[Any, ...]:
        given, names = get_args(getattr(self, "__orig_class__", None)), namespace(self._home)
        return tuple(resolved(self._owner, one, names) for one in given)

    def _checked(self, check: Callable[[Any], Any], payload: Any) -> Any:
        try:
            return check(payload)
        except BadPayload as exc:
            raise BadPayload(f"{self._owner}: {exc}") from exc


class Publisher(Declared, Generic[T]):
    """Publishes payloads of one type on one topic.

    `Publisher[Finding]("Findings/{severity}")`: the topic is relative to the plugin's id, a leading slash makes it
    absolute, each `{name}` is given when publishing. `qos` is MQTT's, 0 to 2. That a value is of the type is checked
    by the type checkers, and in tests by `hosted()`; at an agent it is encoded as it is.
    """

    def __init__(self, topic: str, *, qos: int = 1) -> None:
        self._text = topic
        self.qos = qos
        self.pattern = Pattern("", False, ())
        self.payload_type: Any = Any
        self.encode: Callable[[Any], bytes] = encode

    def bind(self, owner: type, name: str) -> None:
        super().bind(owner, name)
        if self.qos not in (0, 1, 2):
            raise PluginDefinitionError(f"{self._owner}: qos is {self.qos!r}; give 0, 1 or 2")
        self.pattern = self._pattern(self._text, owner)
        with suppress(UnresolvedAnnotation):
            self._take_types(self._types())

    def _patterns(self) -> tuple[Pattern, ...]:
        return (self.pattern,)

    def _take_types(self, types: tuple[Any, ...]) -> None:
        for payload in types:
            self._checked(decoder, payload)
            self.payload_type, self.encode = payload, encoder(payload)

    @overload
    def __get__(self, plugin: None, owner: type) -> "Publisher[T]": ...
    @overload
    def __get__(self, plugin: "Plugin", owner: type) -> "BoundPublisher[T]": ...
    def __get__(self, plugin: "Plugin | None", owner: type) -> "Publisher[T] | BoundPublisher[T]":
        return self if plugin is None else BoundPublisher(self, plugin)


class BoundPublisher(Generic[T]):
    """A publisher of the running plugin."""

    __slots__ = ("_plugin", "_publisher")

    def __init__(self, publisher: Publisher[T], plugin: "Plugin") -> None:
        self._publisher, self._plugin = publisher, plugin

    def _publication(self, payload: T, retain: bool, levels: dict[str, str]) -> Publication:
        topic = self._publisher.pattern.topic(self._plugin.id, levels)
        return Publication(topic, self._publisher.encode(payload), self._publisher.qos, retain)

    async def publish(
        self, payload: T, /, *, wait: Wait = "queued", retain: bool = False, timeout: float | None = None, **levels: str
    ) -> None:
        """Publish; returns when the outbox has it, or with `wait="acknowledged"` when the broker has.

        While the link is down publications wait, in order. With `outbox = "disk"` the outbox has one at QoS 1 or 2 when
        it is on disk. `timeout` is in seconds.

        Raises:
            BadTopic: A level's value is empty or holds `/`, `+`, `#` or NUL.
            BadPayload: The value cannot be encoded.
            Overloaded: The outbox stayed full until the deadline.
            LinkLost: The acknowledgement did not come until the deadline; it may still be sent.
            StoreError: The disk did not take it until the deadline; it may still be sent.
        """
        publication = self._publication(payload, retain, levels)
        await self._plugin.host.publish(publication, wait=wait, timeout=timeout)

    def publish_soon(self, payload: T, /, *, retain: bool = False, **levels: str) -> None:
        """Publish from any thread, without waiting; dropped and counted where the outbox is full.

        Raises:
            BadTopic: As in `publish`.
            BadPayload: As in `publish`.
        """
        self._plugin.host.publish_soon(self._publication(payload, retain, levels))


class Request(Declared, Generic[Q, A]):
    """The caller's side of a command of another plugin: publishes a question, waits for the answer.

    `Request[Question, Decision]("/KeeperPolicy/Commands/evaluate", response="/KeeperPolicy/Responses/evaluate")`.
    Both topics go into the manifest. The question must be a JSON object, since the correlation id travels in it.
    `timeout` is in seconds.
    """

    def __init__(self, topic: str, *, response: str, timeout: float = 10.0) -> None:
        self._texts = topic, response
        self.timeout = timeout
        self.topic = self.response = Pattern("", False, ())
        self.answer_type: Any = Any

    def bind(self, owner: type, name: str) -> None:
        super().bind(owner, name)
        if not is_seconds(self.timeout):
            raise PluginDefinitionError(f"{self._owner}: timeout is {self.timeout!r}; give seconds above 0")
        self.topic, self.response = (self._pattern(text, owner) for text in self._texts)
        if set(self.response.params) - set(self.topic.params):
            raise PluginDefinitionError(
                f"{self._owner}: the response topic {self.response.text!r} has a parameter that {self.topic.text!r} "
                "has not; use the same names in both"
            )
        with suppress(UnresolvedAnnotation):
            self._take_types(self._types())

    def _patterns(self) -> tuple[Pattern, ...]:
        return (self.topic, self.response)

    def _take_types(self, types: tuple[Any, ...]) -> None:
        if not types:
            return
        question, self.answer_type = types
        if question in (bytes, str):
            raise BadPayload(
                f"{self._owner}: a question cannot be {question.__name__}, since its correlation id travels in it; use "
                "a type that is a JSON object"
            )
        self._checked(lambda one: command_decoder(one, ASSUMED.correlation_field), question)
        self._checked(decoder, self.answer_type)

    @overload
    def __get__(self, plugin: None, owner: type) -> "Request[Q, A]": ...
    @overload
    def __get__(self, plugin: "Plugin", owner: type) -> "BoundRequest[Q, A]": ...
    def __get__(self, plugin: "Plugin | None", owner: type) -> "Request[Q, A] | BoundRequest[Q, A]":
        return self if plugin is None else BoundRequest(self, plugin)


class BoundRequest(Generic[Q, A]):
    """A request of the running plugin; call it."""

    __slots__ = ("_plugin", "_request")

    def __init__(self, request: Request[Q, A], plugin: "Plugin") -> None:
        self._request, self._plugin = request, plugin

    async def __call__(self, question: Q, /, **levels: str) -> A:
        """Send the question and return the answer.

        Raises:
            NoAnswer: None came within the timeout.
            Refused: The answer is no; `reason` says why.
            LinkLost: The link is down, so that the question could not be sent.
            BadTopic: A level's value is not allowed.
        """
        request = self._request
        topic = request.topic.topic(self._plugin.id, levels)
        shared = {name: value for name, value in levels.items() if name in request.response.params}
        response = request.response.topic(self._plugin.id, shared)
        answer = await self._plugin.host.request(topic, response, question, request.answer_type, request.timeout)
        return cast("A", answer)
