"""The values that pass between the parts, and what a handler is given."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from ..errors import PluginDefinitionError

T_co = TypeVar("T_co", covariant=True)

EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class Received(msgspec.Struct, frozen=True, gc=False):
    """One inbound PUBLISH, as the session read it (MQTT 5.0, section 3.3).

    `mid` is the packet identifier to acknowledge, 0 at QoS 0; `received_at` is in seconds since the epoch;
    `properties` are the MQTT 5 user properties.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    mid: int = 0
    received_at: float = 0.0
    response_topic: str | None = None
    correlation_data: bytes | None = None
    properties: Mapping[str, str] = EMPTY


class Publication(msgspec.Struct, frozen=True, gc=False):
    """One outbound PUBLISH."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation_data: bytes | None = None


class Caller(Protocol):
    """Whoever sent a command, as the message's `progress` and `defer` need it."""

    def defer(self) -> str:
        """Leave the answer for later; return the ticket."""
        ...

    async def progress(self, report: object) -> None:
        """Send an interim report."""
        ...

    def progress_soon(self, report: object) -> None:
        """Send one from any thread, without waiting."""
        ...


class Message(msgspec.Struct, Generic[T_co], frozen=True, repr_omit_defaults=True):
    """What a handler is given.

    `T` is the payload's type: `bytes` (as it came), `str` (UTF-8 text), `None` (nothing), or what JSON can carry: its
    own types, dataclass, TypedDict, `msgspec.Struct`, a pydantic model. Inside another type text is JSON's.
    """

    payload: T_co
    topic: str
    """The concrete topic, from its first level on."""
    params: Mapping[str, str] = EMPTY
    """Values of the `{name}` levels of the handler's topic."""
    correlation_id: str | None = None
    """The caller's identity of a command, as text."""
    delivery: int = 1
    """1 at first; higher where an earlier run did not finish the message, or its handler is tried again."""
    retained: bool = False
    qos: int = 0
    received_at: float = 0.0
    """When it was received, in seconds since the epoch."""
    properties: Mapping[str, str] = EMPTY
    """MQTT 5 user properties."""
    _caller: Caller | None = None
    """The framework's affair: who waits for an answer. None in a topic's handler, and in a message made by hand."""

    def defer(self) -> str:
        """Leave the answer of a command for later, and return a ticket for `plugin.answer(ticket, result)`.

        What `handle` returns then is not sent. The ticket is a text that can be stored: it is valid from the handler's
        end on, also for later runs (not with `journal = False`), and the same one where the handler is called again. A
        ticket that nobody answers within 7 days is answered with no.

        Raises:
            PluginDefinitionError: The message is no command.
        """
        return self._who("defer").defer()

    async def progress(self, report: object) -> None:
        """Send an interim report to whoever sent the command: `{"correlationId": …, "progress": report}`.

        Raises:
            PluginDefinitionError: The message is no command.
            BadPayload: JSON cannot carry the report.
            Overloaded: The outbox stayed full.
        """
        await self._who("progress").progress(report)

    def progress_soon(self, report: object) -> None:
        """Send an interim report from any thread, without waiting; dropped and counted where the outbox is full.

        Raises:
            PluginDefinitionError: The message is no command.
            BadPayload: JSON cannot carry the report.
        """
        self._who("progress_soon").progress_soon(report)

    def _who(self, method: str) -> Caller:
        if self._caller is None:
            raise PluginDefinitionError(
                f"message.{method}() on {self.topic!r}: only a command has somebody who waits for an answer; register "
                "the handler with command(...)"
            )
        return self._caller
