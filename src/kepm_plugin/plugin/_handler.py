"""`Handler`: one class per topic, and what its `handle` method's annotations say."""

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Never, NoReturn, TypeVar, get_args, get_origin

from msgspec import Struct

from ..contract import ASSUMED
from ..errors import BadPayload, PluginDefinitionError
from ..message import Message, command_decoder, decoder
from ..spelling import nearest
from ..topics import Pattern
from ._annotations import UnresolvedAnnotation, annotated, namespace
from ._checks import check_spelling
from ._publish import Declared
from ._schedule import is_seconds, scheduled
from ._typed import typed_handle

P = TypeVar("P")

OPTIONS = ("concurrency", "timeout", "order_by", "retained", "retries", "dedupe", "overflow")

MOVED = {
    "defer": "answering later is the message's affair: 'ticket = message.defer()'",
    "progress": "progress is reported by the message: 'await message.progress(...)'",
}
"""What is looked for in a handler, and is elsewhere."""

RETRIES = 1_000
"""More of them would take years."""

ORDERED_CONCURRENCY = 8
"""Calls at a time where `order_by` is set and `concurrency` is not."""


class Handler(Generic[P]):
    """Handles the messages of one topic. Subclass it, write `handle`, register it with `topic` or `command`.

    There is one instance per run. `async def handle(self, message: Message[T])` runs on the event loop;
    `def handle` runs in a thread, and its slot stays taken until the thread ends.
    """

    plugin: P
    """The running plugin."""

    concurrency: ClassVar[int] = 1
    """Calls at a time; 1 keeps the order of messages."""
    timeout: ClassVar[float | None] = None
    """Seconds that one call may take; None: as long as it likes."""
    order_by: ClassVar[str | None] = None
    """A parameter of the topic: order is kept for each of its values, and values run in parallel."""
    retained: ClassVar[Literal["handle", "skip"]] = "handle"
    """What to do with a message that the broker had kept from before the subscription."""
    retries: ClassVar[int] = 0
    """How often a message is tried again that the handler failed on, or did not finish within `timeout`."""
    dedupe: ClassVar[str | None] = None
    """A field of the payload's JSON object that identifies a message; without one, a command's correlation id does."""
    overflow: ClassVar[Literal["drop_oldest", "drop_new", "coalesce"]] = "drop_oldest"
    """What goes at QoS 0 when memory is full; `coalesce` keeps only the newest of each topic at any time."""

    if not TYPE_CHECKING:

        def __new__(cls, plugin: Any = None, *_: Any, **__: Any) -> Any:
            """Set the plugin already here, so that an `__init__` that does not call `super()` has it, too."""
            handler = super().__new__(cls)
            handler.plugin = plugin
            typed_handle(handler)
            return handler

    def __init__(self, plugin: P) -> None:
        self.plugin = plugin


class HandlerSpec(Struct, frozen=True):
    """One registration: which class handles which topic."""

    handler: type[Handler[Any]]
    pattern: Pattern
    command: str | None
    """The command as declared, whose result is published on the response topic; None for a plain topic."""

    @property
    def name(self) -> str:
        """The handler's class name, for messages to people."""
        return self.handler.__qualname__

    @property
    def concurrency(self) -> int:
        """Calls at a time."""
        if self.handler.order_by is not None and "concurrency" not in vars(self.handler):
            return ORDERED_CONCURRENCY
        return self.handler.concurrency

    @property
    def is_async(self) -> bool:
        """Whether `handle` runs on the event loop; otherwise in a thread."""
        return inspect.iscoroutinefunction(_handle(self.handler))

    def payload_type(self) -> Any:
        """Return the `T` of `handle(self, message: Message[T])`; the annotation of its result is checked, too.

        Raises:
            BadPayload: The annotation is missing, or is no payload type.
            PluginDefinitionError: An annotation names what its module does not have.
        """
        payload = _payload_type(self)
        _check_result(self)
        return payload


def check_handler(handler: Any, pattern: Pattern, command: str | None, owner: type) -> HandlerSpec:
    """Check one handler class where it is registered.

    Raises:
        PluginDefinitionError: What is wrong, with class, attribute and remedy.
    """
    if not (inspect.isclass(handler) and issubclass(handler, Handler)):
        raise PluginDefinitionError(
            f"{getattr(handler, '__qualname__', handler)} is no handler: make it a class that "
            f"inherits from Handler[{owner.__name__}]"
        )
    kind: type[Handler[Any]] = handler  # pyright: ignore[reportUnknownVariableType]
    _check_handle(kind)
    _check_made(kind)
    _check_attributes(kind)
    _check_options(kind, pattern)
    _check_owner(kind, owner)
    spec = HandlerSpec(kind, pattern, command)
    # Names that are defined further down the module are there when the whole plugin is checked.
    with suppress(UnresolvedAnnotation):
        spec.payload_type()
    return spec


def _handle(kind: type[Handler[Any]]) -> Any:
    return getattr(kind, "handle", None)


def _check_handle(kind: type[Handler[Any]]) -> None:
    handle = _handle(kind)
    if handle is None:
        methods = [
            name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("__")
        ]
        likely = nearest("handle", methods, cutoff=0)
        near = f"; did you mean {likely!r} to be 'handle'?" if likely else ""
        raise PluginDefinitionError(
            f"{kind.__qualname__}.handle is missing: write 'async def handle(self, message: Message[...])'{near}"
        )
    if not inspect.isfunction(handle) or inspect.isgeneratorfunction(handle) or inspect.isasyncgenfunction(handle):
        raise PluginDefinitionError(
            f"{kind.__qualname__}.handle must be a plain method, 'async def' or 'def', that returns its result once"
        )
    parameters = list(inspect.signature(handle).parameters.values())[1:]
    required = [
        one
        for one in parameters
        if one.default is inspect.Parameter.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    if not parameters or len(required) > 1 or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise PluginDefinitionError(
            f"{kind.__qualname__}.handle takes one argument, the message: write 'handle(self, message: Message[...])'"
        )


def _check_made(kind: type[Handler[Any]]) -> None:
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(vars(kind)["__abstractmethods__"]))
        raise PluginDefinitionError(f"{kind.__qualname__} is abstract: it lacks {missing}; write what is missing")
    try:
        inspect.signature(kind.__init__).bind(None, None)
    except TypeError as exc:
        raise PluginDefinitionError(
            f"{kind.__qualname__}.__init__ must take the plugin and nothing else ({exc}); write "
            "'def __init__(self, plugin)' and call 'super().__init__(plugin)'"
        ) from exc


def _check_attributes(kind: type[Handler[Any]]) -> None:
    """Refuse what would do nothing in a handler."""
    where = kind.__qualname__
    for base in kind.__mro__[: kind.__mro__.index(Handler)]:
        for name, value in vars(base).items():
            if isinstance(value, Declared):
                raise PluginDefinitionError(
                    f"{where}.{name} is a {type(value).__name__}, which belongs to the plugin; declare it there, and "
                    f"use 'self.plugin.{name}'"
                )
            if not name.startswith("_") and not inspect.isfunction(value) and name not in OPTIONS:
                check_spelling(where, name, OPTIONS)
    for one in scheduled(kind):
        raise PluginDefinitionError(
            f"{where}.{one.name}: every() and background() are for methods of the plugin; move it there"
        )


def _check_options(kind: type[Handler[Any]], pattern: Pattern) -> None:
    where = kind.__qualname__
    for base in kind.__mro__[: kind.__mro__.index(Handler)]:
        for name in MOVED.keys() & vars(base).keys():
            raise PluginDefinitionError(f"{where}.{name}: {MOVED[name]}; choose another name")
    concurrency: object = kind.concurrency
    if not isinstance(concurrency, int) or isinstance(concurrency, bool) or not 1 <= concurrency <= 1000:
        raise PluginDefinitionError(f"{where}.concurrency is {concurrency!r}; give a number from 1 to 1000")
    timeout: object = kind.timeout
    if timeout is not None and not is_seconds(timeout):
        raise PluginDefinitionError(f"{where}.timeout is {timeout!r}; give seconds above 0, or None for no limit")
    if kind.order_by is not None and kind.order_by not in pattern.params:
        known = ", ".join(repr(name) for name in pattern.params) or "none"
        raise PluginDefinitionError(
            f"{where}.order_by is {kind.order_by!r}, which is no parameter of {pattern.text!r}; its parameters: {known}"
        )
    retained: object = kind.retained
    if retained not in ("handle", "skip"):
        raise PluginDefinitionError(f"{where}.retained is {retained!r}; write 'handle' or 'skip'")
    retries: object = kind.retries
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= RETRIES:
        raise PluginDefinitionError(f"{where}.retries is {retries!r}; give a number from 0 to {RETRIES}")
    dedupe: object = kind.dedupe
    if dedupe is not None and not (isinstance(dedupe, str) and dedupe):
        raise PluginDefinitionError(f"{where}.dedupe is {dedupe!r}; give the name of a field, as in 'eventId', or None")
    overflow: object = kind.overflow
    if overflow not in ("drop_oldest", "drop_new", "coalesce"):
        raise PluginDefinitionError(f"{where}.overflow is {overflow!r}; write 'drop_oldest', 'drop_new' or 'coalesce'")


def _check_owner(kind: type[Handler[Any]], owner: type) -> None:
    for base in kind.__mro__:
        for generic in vars(base).get("__orig_bases__", ()):
            wanted = get_args(generic)
            if get_origin(generic) is Handler and wanted[0] is not Any and inspect.isclass(wanted[0]):
                if not issubclass(owner, wanted[0]):
                    raise PluginDefinitionError(
                        f"{kind.__qualname__} is a Handler[{wanted[0].__name__}] but is registered on "
                        f"{owner.__name__}; write Handler[{owner.__name__}], or register it on {wanted[0].__name__}"
                    )
                return


def _payload_type(spec: HandlerSpec) -> Any:
    handle, where = _handle(spec.handler), f"{spec.name}.handle"
    name = list(inspect.signature(handle).parameters)[1]
    annotation = annotated(where, handle, name, namespace(spec.handler, handle))
    if get_origin(annotation) is not Message:
        fits = inspect.isclass(annotation) and annotation not in (Message, type(None))
        example = annotation.__name__ if fits else "dict[str, object]"
        raise BadPayload(
            f"{where}: the parameter {name!r} must be annotated as Message[...] with the payload's type, as in "
            f"'{name}: Message[{example}]'"
        )
    (payload,) = get_args(annotation)
    try:
        if spec.command is None:
            decoder(payload)
        else:
            command_decoder(payload, ASSUMED.correlation_field)
    except BadPayload as exc:
        raise BadPayload(f"{where}: {exc}") from exc
    return payload


def _check_result(spec: HandlerSpec) -> None:
    handle, where = _handle(spec.handler), f"{spec.name}.handle"
    try:
        result = annotated(where, handle, "return", namespace(spec.handler, handle))
    except UnresolvedAnnotation:
        if spec.command is not None:
            raise
        result = ...  # something, whatever it is
    if spec.command is None:
        if result not in (type(None), Any, object, NoReturn, Never):
            raise PluginDefinitionError(
                f"{where} returns something, but a topic has no answer: register the class with command(...), or "
                "annotate it '-> None' and publish what it found"
            )
        return
    if result in (NoReturn, Never):
        return
    try:
        decoder(result)
    except BadPayload as exc:
        raise BadPayload(f"{where}: the result cannot be sent: {exc}") from exc
