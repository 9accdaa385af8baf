"""What travels: the values that pass between the parts, and the payloads inside them.

Owns decoding and encoding: from raw bytes to the type that a handler's annotation asks for, and back. Knows nothing
of sessions, handlers or files.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast, get_args, get_origin

import msgspec

from .errors import BadPayload, PayloadMismatch

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

    `T` is the payload's type: `bytes` (as it came), `str` (UTF-8 text), or anything that JSON can carry: JSON's own
    types, dataclass, TypedDict, `msgspec.Struct`, a pydantic model.
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


class Decoded(NamedTuple):
    """A payload taken apart: the value, and what the caller wants back with the answer."""

    value: Any
    correlation: object
    """The correlation id as JSON had it: string, number, or None."""


Decode = Callable[[bytes], Any]


def decoder(annotation: Any) -> Decode:
    """Return a function from raw bytes to `annotation`.

    The function raises `PayloadMismatch` for bytes that do not fit, and nothing else.

    Raises:
        BadPayload: No payload can be decoded to the annotation.
    """
    if annotation is bytes:
        return bytes
    if annotation is str:
        return _text
    if _is_pydantic(annotation):
        return _pydantic_decoder(annotation)
    _check(annotation)
    decode = msgspec.json.Decoder(annotation).decode

    def json(payload: bytes) -> Any:
        try:
            return decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise PayloadMismatch(f"the payload does not fit: {exc}") from exc

    return json


def command_decoder(annotation: Any, field: str) -> Callable[[bytes], Decoded]:
    """Return a decoder that first takes the correlation id, property `field`, out of a JSON object.

    Raises:
        BadPayload: No payload can be decoded to the annotation.
    """
    if annotation is bytes or annotation is str:
        raw = decoder(annotation)
        return lambda payload: Decoded(raw(payload), correlation_of(payload, field))
    convert = converter(annotation)

    def decode(payload: bytes) -> Decoded:
        value: Any = decode_json(payload) if payload else {}
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        correlation = fields.pop(field, None)
        return Decoded(convert(value), correlation)

    return decode


def correlation_of(payload: bytes, field: str) -> object:
    """Return the correlation id in a payload of any form, None where there is none. Never raises."""
    try:
        value: Any = decode_json(payload)
    except PayloadMismatch:
        return None
    return cast("dict[str, object]", value).get(field) if isinstance(value, dict) else None


def encode(value: object) -> bytes:
    """Return the payload of a value: bytes as they are, text as UTF-8, everything else as JSON.

    Raises:
        BadPayload: JSON cannot carry the value.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return encode_json(value)


def encode_json(value: object) -> bytes:
    """Return a value as JSON, strings included.

    Raises:
        BadPayload: JSON cannot carry the value.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_encode_hook)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise BadPayload(
            f"a {type(value).__name__} cannot be a payload: {exc}; use JSON types, a dataclass, "
            "a TypedDict, a msgspec.Struct or a pydantic model"
        ) from exc


def decode_json(payload: bytes) -> Any:
    """Return the JSON value in a payload.

    Raises:
        PayloadMismatch: It is not JSON.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PayloadMismatch(f"the payload is not JSON: {exc}") from exc


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise PayloadMismatch(f"the payload is not UTF-8 text: {exc}") from exc


def _is_pydantic(annotation: Any) -> bool:
    # By its two methods and not by its class, so that pydantic is imported by the author or not at all.
    return (
        inspect.isclass(annotation) and hasattr(annotation, "model_validate_json") and hasattr(annotation, "model_dump")
    )


def _pydantic_decoder(model: Any) -> Decode:
    def decode(payload: bytes) -> Any:
        try:
            return model.model_validate_json(payload)
        except ValueError as exc:
            raise PayloadMismatch(f"the payload does not fit {model.__name__}: {exc}") from exc

    return decode


def converter(annotation: Any) -> Callable[[Any], Any]:
    """Return a function from JSON's own types to `annotation`; it raises `PayloadMismatch` for what does not fit.

    Raises:
        BadPayload: JSON cannot carry the annotation.
    """
    pydantic = _is_pydantic(annotation)
    if not pydantic:
        _check(annotation)

    def convert(value: Any) -> Any:
        try:
            return annotation.model_validate(value) if pydantic else msgspec.convert(value, annotation)
        except (msgspec.ValidationError, ValueError, RecursionError) as exc:
            raise PayloadMismatch(f"the payload does not fit: {exc}") from exc

    return convert


def _check(annotation: Any) -> None:
    """Refuse what msgspec would only refuse when the first message comes."""
    try:
        custom = _first_custom(msgspec.inspect.type_info(annotation), set())
        msgspec.json.Decoder(annotation)
    except (TypeError, NameError) as exc:
        raise BadPayload(f"{_name(annotation)} cannot be a payload type: {exc}") from exc
    if custom is not None:
        raise BadPayload(
            f"{_name(annotation)} cannot be a payload type: JSON cannot carry {_name(custom)}; use bytes, str, JSON "
            "types, a dataclass, a TypedDict, a msgspec.Struct or a pydantic model"
        )


def _first_custom(info: Any, seen: set[int]) -> Any:
    if isinstance(info, msgspec.inspect.CustomType) and info.cls is not object:
        return info.cls
    if id(info) in seen or not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return None
    seen.add(id(info))
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for part in value if isinstance(value, tuple) else (value,):  # pyright: ignore[reportUnknownVariableType]
            if (found := _first_custom(part, seen)) is not None:
                return found
    return None


def _name(annotation: Any) -> str:
    if get_origin(annotation) is not None and get_args(annotation):
        return str(annotation)
    return getattr(annotation, "__name__", None) or str(annotation)


def _encode_hook(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    raise TypeError(f"JSON cannot carry {type(value).__name__}")
