"""The values that pass between the parts, and what a handler is given."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Generic, TypeVar

import msgspec

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


class Message(msgspec.Struct, Generic[T_co], frozen=True):
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
    """1 at first; higher where an earlier run received the message and did not finish it."""
    retained: bool = False
    qos: int = 0
    received_at: float = 0.0
    """When it was received, in seconds since the epoch."""
    properties: Mapping[str, str] = EMPTY
    """MQTT 5 user properties."""
