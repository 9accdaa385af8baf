"""`Secret` and `Size`: the types of values that are the framework's own."""

import copy
import json
import logging
import pickle
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin import Secret, Size
from kepm_plugin.errors import BadPayload
from kepm_plugin.message import encode

HIDDEN = Secret("hunter2")


@pytest.mark.parametrize(
    "shown",
    [
        repr(HIDDEN),
        str(HIDDEN),
        f"{HIDDEN} {HIDDEN!r} {HIDDEN!s} {HIDDEN!a}",
        f"{HIDDEN:>12}",
        "as logging does it: %s %r" % (HIDDEN, HIDDEN),  # noqa: UP031
        "as people did it: {0} {0!r}".format(HIDDEN),  # noqa: UP032
        repr([HIDDEN]) + repr({"a": HIDDEN}),
        logging.LogRecord("x", 20, "x", 1, "token %s", (HIDDEN,), None).getMessage(),
    ],
)
def test_a_secret_is_shown_as_stars(shown: str) -> None:
    assert "hunter2" not in shown
    assert "***" in shown


def test_a_secret_is_revealed_to_who_asks() -> None:
    assert HIDDEN.reveal() == "hunter2"
    assert (len(HIDDEN), bool(HIDDEN), bool(Secret(""))) == (7, True, False)


USES: list[Callable[[Any], object]] = [
    json.dumps,
    msgspec.json.encode,
    lambda secret: "".join([secret]),
    lambda secret: "a" + secret,
    lambda secret: sorted([secret, secret]),
    iter,
    re.compile,
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_a_secret_cannot_be_used_as_the_text_that_it_is_not(use: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as caught:
        use(HIDDEN)
    assert "hunter2" not in str(caught.value)


def test_a_secret_cannot_be_published() -> None:
    assert not isinstance(HIDDEN, str)
    with pytest.raises(BadPayload) as refused:
        encode({"token": HIDDEN})
    assert "hunter2" not in str(refused.value)


def test_a_secret_does_not_change() -> None:
    with pytest.raises(AttributeError, match="does not change"):
        HIDDEN._text = "other"  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(AttributeError, match="does not change"):
        del HIDDEN._text  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(AttributeError):
        HIDDEN.other = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        vars(HIDDEN)


@pytest.mark.parametrize("wrong", [None, 5, b"hunter2", HIDDEN])
def test_a_secret_is_made_of_text(wrong: object) -> None:
    with pytest.raises(TypeError, match="a Secret is made of a str, not of ") as caught:
        Secret(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "hunter2" not in str(caught.value)


@given(st.text(), st.text())
def test_secrets_are_equal_where_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert hash(Secret(one)) == hash(Secret(one))
    assert Secret(one) != one
    for made in (copy.copy(Secret(one)), copy.deepcopy([Secret(one)])[0], pickle.loads(pickle.dumps(Secret(one)))):  # noqa: S301
        assert made == Secret(one)


def test_a_lone_surrogate_has_a_comparison_too() -> None:
    assert Secret("\ud800") == Secret("\ud800")
    assert Secret("\ud800") != Secret("?")


def test_a_size_is_an_int_that_shows_its_unit() -> None:
    size = Size("64 KiB")
    assert (size, repr(size), str(size), f"{size}", f"{size:,}") == (
        65_536,
        "Size('64KiB')",
        "64KiB",
        "64KiB",
        "65,536",
    )
    assert type(size * 2) is int
    assert (Size(), Size(5), Size(Size(7))) == (0, 5, 7)
    assert json.dumps(size) == "65536"


@pytest.mark.parametrize(
    ("wrong", "error"), [(-1, ValueError), (2**63, ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_what_no_size_can_be_made_of(wrong: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        Size(wrong)


@given(st.integers(0, 2**63 - 1))
def test_a_size_is_made_again_from_its_text(number: int) -> None:
    size = Size(number)
    assert Size(str(size)) == size
    for made in (copy.deepcopy(size), pickle.loads(pickle.dumps(size))):  # noqa: S301
        assert (made, type(made)) == (size, Size)
