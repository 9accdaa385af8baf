"""What `topic` and `command` return: they write one checked record on the plugin's class, and nothing else."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

from ..contract import COMMANDS_LEVEL, RESPONSES_LEVEL
from ..errors import PluginDefinitionError, TopicClash
from ..message import Message
from ._handler import check_handler
from ._patterns import declared

P_co = TypeVar("P_co", covariant=True)


class Handles(Protocol):
    """Every handler, for the checkers: `handle` takes the message and nothing else."""

    @property
    def handle(self) -> Callable[[Message[Any]], Any]:
        """Return the method."""
        ...


H = TypeVar("H", bound=Handles)


class Registration(Generic[P_co]):
    """Registers a handler class on plugin `P`, and gives the very class back."""

    def __init__(self, owner: Any, text: str, *, command: bool) -> None:
        decorator, example = ("command", "'scan'") if command else ("topic", "'Events/{host}'")
        if not isinstance(text, str):
            name = getattr(text, "__qualname__", repr(text))
            raise PluginDefinitionError(
                f"{name}: {decorator} needs its text; write '@{owner.__name__}.{decorator}({example})' above the class"
            )
        self._owner, self._text, self._command = owner, text, command
        self.written = f"{owner.__name__}.{decorator}({text!r})"
        """As it stands in the code, for messages to people."""
        owner.pending_registrations().append(self)

    # A class is, for the checkers, a function that makes a handler of the plugin: a handler of another one is refused.
    def __call__(self, handler: Callable[[P_co], H], /) -> type[H]:
        """Check the class where it stands, and keep the record.

        Raises:
            PluginDefinitionError: Topic or handler is wrong; the message has the remedy.
        """
        owner, kind = self._owner, cast("Any", handler)
        if self in owner.pending_registrations():
            owner.pending_registrations().remove(self)
        where = getattr(kind, "__qualname__", repr(kind))
        topic = self._text
        if self._command:
            _check_command(where, owner.id, topic)
            topic = f"{COMMANDS_LEVEL}/{topic}"
        else:
            _check_topic(where, topic)
        pattern = declared(where, topic, owner)
        spec = check_handler(kind, pattern, self._text if self._command else None, owner)
        own = pattern.filter("{id}").casefold()
        for other in owner.handler_specs():
            if other.pattern.filter("{id}").casefold() == own:
                raise TopicClash(
                    f"{where} and {other.name} both take {topic!r} of {owner.__name__}: one message has one handler; "
                    "remove one of them, or give it another topic"
                )
        owner.add_handler(spec)
        return cast("type[H]", handler)


def _check_topic(where: str, topic: str) -> None:
    """Refuse one command as a topic. One that takes them all, `Commands/{verb}`, may well leave them unanswered."""
    first, _, rest = topic.partition("/")
    if (
        rest
        and not rest.startswith("{")
        and first.casefold() in (COMMANDS_LEVEL.casefold(), RESPONSES_LEVEL.casefold())
    ):
        raise PluginDefinitionError(
            f"{where}: topic({topic!r}) would get no answer sent; write command({rest!r}), which takes "
            f"'{COMMANDS_LEVEL}/{rest}' and answers on '{RESPONSES_LEVEL}/{rest}'"
        )


def _check_command(where: str, plugin_id: str, command: str) -> None:
    first, _, rest = command.partition("/")
    if not first:
        raise PluginDefinitionError(f"{where}: a command is a name below {COMMANDS_LEVEL!r}, as in command('scan')")
    if first.casefold() == plugin_id.casefold():
        first, _, rest = rest.partition("/")
    if first.casefold() == COMMANDS_LEVEL.casefold():
        raise PluginDefinitionError(
            f"{where}: command({command!r}) stands below {COMMANDS_LEVEL!r} already; write command({rest or 'scan'!r})"
        )
