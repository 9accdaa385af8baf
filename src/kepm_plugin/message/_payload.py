"""Payloads: from raw bytes to the type that a handler's annotation asks for, and back."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast, get_args, get_origin

import msgspec

from ..errors import BadPayload, PayloadMismatch
from ._pydantic import complaint, has_pydantic, is_pydantic, plain, properties, validator


class Decoded(NamedTuple):
    """A payload taken apart: the value, and what the caller wants back with the answer."""

    value: Any
    correlation: object
    """The correlation id as JSON had it: string, number, or None."""


Decode = Callable[[bytes], Any]

_TYPES: Final = "bytes, str, JSON types, a dataclass, a TypedDict, a msgspec.Struct or a pydantic model"
_REASON_LENGTH: Final = 500  # of what does not fit, which may quote the payload
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

_SCALARS: Final = ("Int", "Float", "Bool", "Str", "Bytes", "ByteArray", "DateTime", "Date", "Time", "TimeDelta", "UUID")
_NO_OBJECT: Final = tuple(
    getattr(msgspec.inspect, f"{name}Type")
    for name in (*_SCALARS, "Decimal", "List", "Set", "FrozenSet", "VarTuple", "Tuple", "Enum", "Literal")
)


def decoder(annotation: Any) -> Decode:
    """Return a function from raw bytes to `annotation`.

    `bytes` takes the payload as it came, `str` as UTF-8 text, `None` an empty payload or JSON's null; everything else
    is JSON, `str | None` and the like included. The function raises `PayloadMismatch` for bytes that do not fit.

    Raises:
        BadPayload: No payload can be decoded to the annotation.
    """
    if annotation is bytes:
        return bytes
    if annotation is str:
        return _text
    decode = _json_decoder(annotation)
    if annotation in (None, type(None)):
        return lambda payload: decode(payload or b"null")
    return decode


def command_decoder(annotation: Any, field: str) -> Callable[[bytes], Decoded]:
    """Return a decoder that first takes the correlation id, property `field`, out of a JSON object.

    A command is an object, since the id travels in it; `bytes` and `str` take its text as it came, id included. An
    empty payload counts as `{}`, and `{}` as `None` where that is asked for: a command without arguments.

    Raises:
        BadPayload: No payload can be decoded to the annotation, no object can, or it has the property `field` itself.
    """
    decode = decoder(annotation)
    if annotation is bytes or annotation is str:
        return lambda payload: Decoded(decode(payload), correlation_of(payload, field))
    if not _takes_object(annotation):
        raise BadPayload(
            f"{_name(annotation)} cannot be the payload of a command, which is a JSON object; use a dataclass, a "
            "TypedDict, dict[str, …] and the like, None where it has no arguments, or bytes"
        )
    if field in _properties(annotation):
        raise BadPayload(
            f"{_name(annotation)} has the property {field!r}, which is taken out of a command before it is decoded; "
            "leave it out, and use message.correlation_id"
        )
    nothing = annotation in (None, type(None))

    def take(payload: bytes) -> Decoded:
        payload = payload or b"{}"
        correlation: object = None
        try:
            fields = _OBJECT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = None  # no object, or no JSON; the decoder says what is wrong
        if fields is not None and field in fields:
            correlation = decode_json(bytes(fields.pop(field)))
            payload = msgspec.json.encode(fields)
        return Decoded(None if nothing and fields == {} else decode(payload), correlation)

    return take


def converter(annotation: Any) -> Callable[[Any], Any]:
    """Return a function from JSON's own types to `annotation`; it raises `PayloadMismatch` for what does not fit.

    Raises:
        BadPayload: JSON cannot carry the annotation.
    """
    decode = _json_decoder(annotation)
    return lambda value: decode(encode_json(value))


def correlation_of(payload: bytes, field: str) -> object:
    """Return the correlation id in a payload of any form, None where there is none. Never raises."""
    try:
        value: Any = decode_json(payload)
    except PayloadMismatch:
        return None
    return cast("dict[str, object]", value).get(field) if isinstance(value, dict) else None


def encoder(annotation: Any) -> Callable[[Any], bytes]:
    """Return the function that `decoder` of the same annotation turns back.

    The function raises `BadPayload` for a value that cannot be encoded.
    """
    return encode if annotation in (bytes, str, Any, object) else encode_json


def fitting(annotation: Any) -> Callable[[Any, bytes], object]:
    """Return a function from a value and its payload that raises `PayloadMismatch` where a receiver finds another type.

    A dict fits a dataclass of the same properties. Models are judged by their class alone: what pydantic writes need
    not be what it reads.
    """
    if annotation in (bytes, str):
        return lambda value, _: _of_class(value, bytes | bytearray if annotation is bytes else str, annotation)
    if is_pydantic(annotation):
        return lambda value, _: _of_class(value, annotation, annotation)
    if has_pydantic(annotation) or annotation in (Any, object):
        return lambda _value, _payload: None
    decode = decoder(annotation)
    return lambda _, payload: decode(payload)


def _of_class(value: Any, kind: Any, annotation: Any) -> None:
    if not isinstance(value, kind):
        raise PayloadMismatch(f"expected {_name(annotation)}, got {type(value).__name__}")


def encode(value: object) -> bytes:
    """Return the payload of a value: bytes as they are, text as UTF-8, everything else as JSON.

    Raises:
        BadPayload: The value cannot be encoded.
    """
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as exc:
            raise BadPayload(f"a text cannot be a payload: {exc.reason}, at position {exc.start}") from exc
    return encode_json(value)


def encode_json(value: object) -> bytes:
    """Return a value as JSON, strings included. NaN and infinity become null: JSON has neither.

    Raises:
        BadPayload: JSON cannot carry the value.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_encode_hook)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise BadPayload(f"a {type(value).__name__} cannot be a payload: {exc}; use {_TYPES}") from exc


def decode_json(payload: bytes) -> Any:
    """Return the JSON value in a payload.

    Raises:
        PayloadMismatch: It is not JSON.
    """
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PayloadMismatch(f"the payload is not JSON: {_short(exc)}") from exc


def indented(text: str) -> str | None:
    """Return a text that is JSON with one value a line, and otherwise as it came; None where it is none."""
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise PayloadMismatch(f"the payload is not UTF-8 text: {exc.reason}, at position {exc.start}") from exc


def _json_decoder(annotation: Any) -> Decode:
    if has_pydantic(annotation):
        return _pydantic_decoder(annotation)
    _check(annotation)
    decode = msgspec.json.Decoder(annotation).decode

    def json(payload: bytes) -> Any:
        try:
            return decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise PayloadMismatch(f"the payload does not fit: {_short(exc)}") from exc

    return json


def _pydantic_decoder(annotation: Any) -> Decode:
    try:
        validate = validator(annotation)
    except TypeError as exc:
        raise BadPayload(f"{_name(annotation)} cannot be a payload type: {exc}") from exc

    def decode(payload: bytes) -> Any:
        try:
            return validate(payload)
        except ValueError as exc:
            # Its own text, and so the chained exception, quotes the payload.
            raise PayloadMismatch(f"the payload does not fit: {_short(complaint(exc))}") from None

    return decode


def _short(reason: object) -> str:
    text = str(reason)
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"


def _check(annotation: Any) -> None:
    """Refuse what msgspec would only refuse when the first message comes."""
    name = _name(annotation)
    # msgspec takes a type variable for Any.
    if isinstance(annotation, TypeVar) or (get_origin(annotation) and getattr(annotation, "__parameters__", ())):
        raise BadPayload(f"{name} cannot be a payload type: it has a type variable; name the type itself")
    try:
        custom = _first_custom(msgspec.inspect.type_info(annotation), set())
        msgspec.json.Decoder(annotation)
    except (TypeError, NameError) as exc:
        raise BadPayload(f"{name} cannot be a payload type: {exc}") from exc
    if custom is not None:
        if is_pydantic(custom):
            remedy = "a pydantic model goes into pydantic models, lists, dicts and unions; make this one of them"
            raise BadPayload(f"{name} cannot be a payload type: it holds {_name(custom)}, and {remedy}")
        raise BadPayload(f"{name} cannot be a payload type: JSON cannot carry {_name(custom)}; use {_TYPES}")


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


def _properties(annotation: Any) -> set[str]:
    """Return the names that an object of the annotation has in JSON, as far as it says."""
    if has_pydantic(annotation):
        return properties(annotation)
    info = msgspec.inspect.type_info(annotation)
    objects: tuple[Any, ...] = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return {field.encode_name for one in objects for field in getattr(one, "fields", ())}


def _takes_object(annotation: Any) -> bool:
    """Tell whether a JSON object, or no arguments at all, can be decoded to it."""
    if has_pydantic(annotation):
        return is_pydantic(annotation) or get_origin(annotation) not in (list, tuple, set, frozenset)
    info = msgspec.inspect.type_info(annotation)
    return any(not isinstance(one, _NO_OBJECT) for one in getattr(info, "types", (info,)))


def _name(annotation: Any) -> str:
    if get_origin(annotation) is not None and get_args(annotation):
        return str(annotation)
    return getattr(annotation, "__name__", None) or str(annotation)


def _encode_hook(value: Any) -> Any:
    if is_pydantic(type(value)):
        return plain(value)
    raise TypeError(f"JSON cannot carry {type(value).__name__}")
