"""Payloads: raw bytes to the type of an annotation, and back."""

import json
import math
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin.errors import BadPayload, PayloadMismatch
from kepm_plugin.message import (
    Decoded,
    command_decoder,
    converter,
    correlation_of,
    decode_json,
    decoder,
    encode,
    encode_json,
    encoder,
)

PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FIELD = "correlationId"
T = TypeVar("T")


class Severity(StrEnum):
    HIGH = "high"


class Colour(Enum):
    RED = 1


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class Tree(msgspec.Struct):
    name: str
    below: list["Tree"] = []


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Box(msgspec.Struct, Generic[T]):
    content: T


VARIABLE: Any = vars(Box)["__parameters__"][0]


class Checked(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass
class Finding:
    path: Path | str
    tags: list[str] = field(default_factory=list[str])


@dataclass
class Scan:
    folder: str
    limits: dict[int, float] = field(default_factory=dict[int, float])


class Question(TypedDict):
    user: str
    groups: list[str]


class Model(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(default=0, ge=0)


class StrictModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    since: datetime


class Aliased(pydantic.BaseModel):
    identity: str = pydantic.Field(alias="correlationId")


class Holder(msgspec.Struct):
    model: Model


class Plain:
    pass


Name = NewType("Name", str)


class Correlated(msgspec.Struct, rename="camel"):
    correlation_id: str
    path: str = ""


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "payload", "value"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (bytes, b"", b""),
        (str, "grüße".encode(), "grüße"),
        (str, b"", ""),
        (str, b'"quoted"', '"quoted"'),
        (None, b"", None),
        (None, b"null", None),
        (type(None), b"", None),
        (int, b"3", 3),
        (float, b"3", 3.0),
        (bool, b"true", True),
        (str | None, b'"json"', "json"),
        (str | None, b"null", None),
        (list[int], b"[1, 2]", [1, 2]),
        (dict[str, object], b'{"a": [1, null, "x"]}', {"a": [1, None, "x"]}),
        (dict[int, str], b'{"1": "a"}', {1: "a"}),
        (dict[str, Any], b"{}", {}),
        (Mapping[str, int], b'{"a": 1}', {"a": 1}),
        (Sequence[int], b"[1]", [1]),
        (tuple[int, str], b'[1, "a"]', (1, "a")),
        (set[int], b"[1, 1]", {1}),
        (object, b'{"a": 1}', {"a": 1}),
        (Any, b"[]", []),
        (list, b"[1]", [1]),
        (Literal["a", "b"], b'"a"', "a"),
        (Name, b'"x"', "x"),
        (Annotated[int, msgspec.Meta(ge=1)], b"1", 1),
        (datetime, b'"2026-01-02T03:04:05Z"', datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (Decimal, b"0.1", Decimal("0.1")),
        (Severity, b'"high"', Severity.HIGH),
        (Colour, b"1", Colour.RED),
        (Point, b'{"x": 1}', Point(1, 0)),
        (Point, b'{"x": 1, "other": 2}', Point(1, 0)),
        (Tree, b'{"name": "a", "below": [{"name": "b"}]}', Tree("a", [Tree("b")])),
        (Circle | Square, b'{"type": "Square", "side": 2}', Square(2.0)),
        (Point | None, b"null", None),
        (Box[int], b'{"content": 1}', Box(1)),
        (Scan, b'{"folder": "/etc", "limits": {"1": 2}}', Scan("/etc", {1: 2.0})),
        (Question, b'{"user": "a", "groups": []}', {"user": "a", "groups": []}),
        (Model, b'{"name": "a", "size": 2}', Model(name="a", size=2)),
        (list[Model], b'[{"name": "a"}]', [Model(name="a")]),
        (dict[str, Model], b'{"x": {"name": "a"}}', {"x": Model(name="a")}),
        (Model | None, b"null", None),
        (
            Model | StrictModel,
            b'{"since": "2026-01-02T00:00:00Z"}',
            StrictModel(since=datetime(2026, 1, 2, tzinfo=UTC)),
        ),
    ],
)
def test_a_payload_becomes_the_annotation(annotation: Any, payload: bytes, value: object) -> None:
    found = decoder(annotation)(payload)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("annotation", "payload", "said"),
    [
        (str, b"\xff", "the payload is not UTF-8 text: invalid start byte, at position 0"),
        (None, b"1", "Expected `null`, got `int`"),
        (int, b"", "Input data was truncated"),
        (int, b'"1"', "Expected `int`, got `str`"),
        (dict[str, object], b"[]", "Expected `object`, got `array`"),
        (Point, b"{}", "Object missing required field `x`"),
        (Point, b'{"x": "1"}', "Expected `int`, got `str` - at `$.x`"),
        (Strict, b'{"path": "", "paht": ""}', "Object contains unknown field `paht`"),
        (Checked, b'{"low": 2, "high": 1}', "low is above high"),
        (float, b"NaN", "JSON is malformed"),
        (float, b"1e999", "Number out of range"),
        (object, b"[" * 100_000, "maximum recursion depth exceeded"),
        (list[object], b"[" * 100_000, "maximum recursion depth exceeded"),
        (object, b'"\xff"', "invalid start byte"),
        (Model, b'{"name": 1, "size": -1}', "Input should be a valid string - at `$.name`; Input should be greater"),
        (Model, b"", "Invalid JSON"),
        (Model, b'{"name":' + b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        (list[Model], b"[{}]", "Field required - at `$.0.name`"),
    ],
)
def test_a_payload_that_does_not_fit_says_why(annotation: Any, payload: bytes, said: str) -> None:
    with pytest.raises(PayloadMismatch) as caught:
        decoder(annotation)(payload)
    assert caught.value.reason.startswith("the payload ")
    assert said in caught.value.reason


def test_the_reason_is_short_and_does_not_quote_a_model_s_payload() -> None:
    with pytest.raises(PayloadMismatch) as caught:
        decoder(Model)(b'{"name": ["hunter2"]}')
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(PayloadMismatch) as caught:
        decoder(Strict)(json.dumps({"path": "", "x" * 5_000: 1}).encode())
    assert len(caught.value.reason) < 600
    with pytest.raises(PayloadMismatch) as caught:
        decoder(list[Model])(json.dumps([{}] * 1_000).encode())
    assert len(caught.value.reason) < 600


ANNOTATIONS = [
    bytes, str, None, int, float, bool, list[int], dict[str, object], dict[int, str], object, tuple[int, str],
    datetime, Decimal, Severity, Point, Strict, Tree, Circle | Square, Box[int], Checked, Scan, Question, Model,
    list[Model], StrictModel, Model | None, str | None, Literal["a"],
]  # fmt: skip
DECODERS: list[Callable[[bytes], Any]] = [decoder(one) for one in ANNOTATIONS]
OBJECTS = [
    bytes, str, None, dict[str, object], dict[int, str], object, Point, Strict, Tree, Circle | Square, Box[int],
    Checked, Scan, Question, Model, StrictModel, Model | None, str | None,
]  # fmt: skip
TAKERS: list[Callable[[bytes], Decoded]] = [command_decoder(one, FIELD) for one in OBJECTS]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ("x", "y", "name", "below", "path", "type", "side", "1", "low", "high", "folder", "content", FIELD)
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
payloads = (
    st.binary(max_size=30)
    | st.text(max_size=20).map(str.encode)
    | values.map(lambda value: json.dumps(value).encode())
    | st.sampled_from((b"[" * 5_000, b'{"correlationId":' + b"[" * 5_000, b'{"x":' * 5_000, b'{"correlationId":1e999}'))
)


@PATIENT
@given(payloads)
def test_any_bytes_decode_or_do_not_fit(payload: bytes) -> None:
    for decode in (*DECODERS, *TAKERS, decode_json):
        try:
            decode(payload)
        except PayloadMismatch as exc:
            reason = exc.reason
            if not reason.startswith("the payload "):
                pytest.fail(reason)
    correlation_of(payload, FIELD)


# --- what cannot be a payload -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Plain, "Plain cannot be a payload type: JSON cannot carry Plain; use bytes, str, JSON types, a dataclass"),
        (set[socket.socket], "set[socket.socket] cannot be a payload type: JSON cannot carry socket"),
        (dict[str, list[Plain]], "JSON cannot carry Plain"),
        (Finding, "Finding cannot be a payload type: "),
        (Callable[[], int], "Callable"),
        (Iterator[int], "Iterator"),
        (complex, "JSON cannot carry complex"),
        (type, "JSON cannot carry type"),
        (Exception, "JSON cannot carry Exception"),
        (bytes | str, "more than one str-like type"),
        (Point | Scan, "Type unions"),
        (VARIABLE, "T cannot be a payload type: it has a type variable; name the type itself"),
        (GenericAlias(list, (VARIABLE,)), "it has a type variable; name the type itself"),
        (5, "5 cannot be a payload type"),
        ("Point", "Point cannot be a payload type"),
        (print, "print cannot be a payload type"),
        (Holder, "it holds Model, and a pydantic model goes into pydantic models, lists, dicts and unions"),
        (Model | socket.socket, "cannot be a payload type"),
    ],
)
def test_an_annotation_that_json_cannot_carry_is_refused_where_it_stands(annotation: Any, said: str) -> None:
    declarations: list[Callable[[Any], object]] = [decoder, converter, lambda one: command_decoder(one, FIELD)]
    for declare in declarations:
        with pytest.raises(BadPayload) as caught:
            declare(annotation)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Correlated, Correlated | None, Aliased])
def test_a_command_s_type_does_not_name_the_correlation_id_itself(annotation: Any) -> None:
    with pytest.raises(BadPayload, match=r"has the property 'correlationId', .* use message.correlation_id"):
        command_decoder(annotation, FIELD)
    decoder(annotation)  # in a topic handler it is a property like any other
    command_decoder(annotation, "requestId")


@pytest.mark.parametrize(
    "annotation", [int, bool, list[int], tuple[int, str], datetime, Severity, list[Model]], ids=str
)
def test_a_command_is_an_object(annotation: Any) -> None:
    with pytest.raises(BadPayload, match="cannot be the payload of a command, which is a JSON object; use a dataclass"):
        command_decoder(annotation, FIELD)


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "payload", "value", "correlation"),
    [
        (dict[str, object], b'{"correlationId": "1", "a": 2}', {"a": 2}, "1"),
        (dict[str, object], b'{"a": 2}', {"a": 2}, None),
        (dict[str, object], b"", {}, None),
        (dict[str, object], b'{"correlationId": null}', {}, None),
        (object, b'[{"correlationId": 1}]', [{"correlationId": 1}], None),
        (Strict, b'{"correlationId": 7, "path": "/"}', Strict("/"), 7),
        (Scan, b'{"folder": "/", "correlationId": {"a": [1]}}', Scan("/"), {"a": [1]}),
        (Question, b'{"user": "a", "groups": [], "correlationId": "x"}', {"user": "a", "groups": []}, "x"),
        (dict[int, str], b'{"1": "a", "correlationId": "x"}', {1: "a"}, "x"),
        (Model, b'{"name": "a", "correlationId": "x"}', Model(name="a"), "x"),
        (
            StrictModel,
            b'{"since": "2026-01-02T00:00:00Z", "correlationId": 1}',
            StrictModel(since=datetime(2026, 1, 2, tzinfo=UTC)),
            1,
        ),
        (None, b'{"correlationId": "1"}', None, "1"),
        (None, b"", None, None),
        (None, b"{}", None, None),
        (None, b"null", None, None),
        (bytes, b'{"correlationId": "1"}', b'{"correlationId": "1"}', "1"),
        (bytes, b"\xff", b"\xff", None),
        (str, b"text", "text", None),
        (str, b'{"correlationId": "1"}', '{"correlationId": "1"}', "1"),
    ],
)
def test_the_correlation_id_is_taken_out_of_a_command(
    annotation: Any, payload: bytes, value: object, correlation: object
) -> None:
    assert command_decoder(annotation, FIELD)(payload) == (value, correlation)


@pytest.mark.parametrize(
    ("annotation", "payload", "said"),
    [
        (Strict, b"", "Object missing required field `path`"),
        (Strict, b"{", "the payload does not fit"),
        (None, b'{"x": 1}', "Expected `null`, got `object`"),
        (dict[str, object], b'{"correlationId": 1e999}', "Number out of range"),
    ],
)
def test_a_command_that_does_not_fit_says_why(annotation: Any, payload: bytes, said: str) -> None:
    with pytest.raises(PayloadMismatch, match=re.escape(said)):
        command_decoder(annotation, FIELD)(payload)


@PATIENT
@given(values)
def test_a_command_without_correlation_id_is_decoded_like_any_message(value: object) -> None:
    if isinstance(value, dict) and FIELD in value:
        del value[FIELD]
    payload = json.dumps(value).encode()
    for annotation, take in zip(OBJECTS, TAKERS, strict=True):
        decode = DECODERS[ANNOTATIONS.index(annotation)]
        if annotation is not None:
            taken = _outcome(take, payload)
            assert (taken.value if isinstance(taken, Decoded) else taken) == _outcome(decode, payload)


def _outcome(decode: Callable[[bytes], Any], payload: bytes) -> object:
    try:
        return decode(payload)
    except PayloadMismatch as exc:
        return exc.reason


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"correlationId": "a"}', "a"),
        (b'{"correlationId": 3}', 3),
        (b'{"CorrelationId": 3}', None),
        (b"{}", None),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_correlation_id_is_found_in_whatever_comes(payload: bytes, found: object) -> None:
    assert correlation_of(payload, FIELD) == found


# --- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (b"\xff", b"\xff"),
        (bytearray(b"\xff"), b"\xff"),
        ("grüße", "grüße".encode()),
        ("", b""),
        (None, b"null"),
        (1, b"1"),
        (True, b"true"),
        ([1, "a", None], b'[1,"a",null]'),
        ({"a": {"b": 1.5}}, b'{"a":{"b":1.5}}'),
        ({1: "a"}, b'{"1":"a"}'),
        ((1, 2), b"[1,2]"),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        (Severity.HIGH, b"high"),
        (Colour.RED, b"1"),
        (Point(1), b'{"x":1,"y":0}'),
        (Scan("/etc", {1: 2.0}), b'{"folder":"/etc","limits":{"1":2.0}}'),
        (Model(name="a"), b'{"name":"a","size":0}'),
        ([Model(name="a")], b'[{"name":"a","size":0}]'),
        (StrictModel(since=datetime(2026, 1, 2, tzinfo=UTC)), b'{"since":"2026-01-02T00:00:00Z"}'),
        ([math.nan, math.inf, -math.inf], b"[null,null,null]"),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_a_value_becomes_a_payload(value: object, payload: bytes) -> None:
    assert encode(value) == payload


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Plain(), "a Plain cannot be a payload: JSON cannot carry Plain; use bytes, str, JSON types, a dataclass"),
        ({"a": [Plain()]}, "a dict cannot be a payload: JSON cannot carry Plain"),
        (Path("/etc"), "JSON cannot carry PosixPath"),
        ({(1, 2): 3}, "a dict cannot be a payload"),
        (1j, "a complex cannot be a payload"),
        ("\ud800", "a text cannot be a payload: surrogates not allowed, at position 0"),
        (["\ud800"], "a list cannot be a payload"),
    ],
)
def test_a_value_that_cannot_be_encoded_is_refused(value: object, said: str) -> None:
    with pytest.raises(BadPayload) as caught:
        encode(value)
    assert said.replace("PosixPath", type(value).__name__) in str(caught.value)


def test_a_value_that_holds_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadPayload, match="maximum recursion depth"):
        encode(endless)


def test_text_is_quoted_where_json_is_asked_for() -> None:
    assert encode_json("a") == b'"a"'


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bytes, b"\xff"),
        (str, "a"),
        (str | None, "a"),
        (str | None, None),
        (Severity, Severity.HIGH),
        (Literal["a"], "a"),
        (Name, "x"),
        (None, None),
        (Point, Point(1, 2)),
        (Scan, Scan("/", {1: 2.0})),
        (Question, {"user": "a", "groups": ["b"]}),
        (Model, Model(name="a")),
        (list[Model], [Model(name="a")]),
        (dict[int, str], {1: "a"}),
        (bytes | None, b"\xff"),
    ],
)
def test_what_a_publisher_sends_a_handler_of_the_same_type_receives(annotation: Any, value: object) -> None:
    assert decoder(annotation)(encoder(annotation)(value)) == value


@PATIENT
@given(values)
def test_json_values_survive_the_way(value: object) -> None:
    assert decode_json(encode_json(value)) == value
    assert converter(object)(value) == value


@pytest.mark.parametrize(
    ("annotation", "value", "found"),
    [
        (str, "done", "done"),
        (bytes, "/w==", b"\xff"),
        (Point, {"x": 1}, Point(1)),
        (Model, {"name": "a"}, Model(name="a")),
    ],
)
def test_json_s_own_types_become_the_annotation(annotation: Any, value: object, found: object) -> None:
    assert converter(annotation)(value) == found
    with pytest.raises(PayloadMismatch):
        converter(annotation)(3)
