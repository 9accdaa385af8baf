"""What the agent's texts mean for the framework's knobs: each read by itself, within its range."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin import Plugin
from kepm_plugin.knobs import COUNTERS, KEYS, Knobs, defaults, near_miss, read
from kepm_plugin.settings import fields_of

NAMES = {key: name for name, key in KEYS.items()}
NUMBERS = [field for field in fields_of(Knobs) if field.constraints]


class P(Plugin):
    id = "P"


class Mute(Plugin):
    id = "Mute"
    heartbeat = None


def chosen(values: dict[str, str], last: Knobs | None = None) -> dict[str, Any]:
    """Return what is set, by key; nothing may be wrong."""
    reading = read(values, P, last or Knobs())
    assert (reading.refused, reading.unknown) == ({}, {})
    return {key: value for name, key in KEYS.items() if (value := getattr(reading.knobs, name)) is not None}


def test_each_knob_has_a_default_a_description_and_a_range() -> None:
    assert set(defaults(P)) == set(KEYS)
    assert set(COUNTERS) <= set(KEYS)
    assert [field.key for field in fields_of(Knobs) if not field.description] == []
    assert [field.key for field in fields_of(Knobs) if set(field.constraints) != {"ge", "le"}] == ["kepm.log.level"]
    assert all(field.constraints["ge"] > 0 for field in NUMBERS), "nothing is switched off by a zero"
    for field in NUMBERS:
        assert field.constraints["ge"] <= defaults(P)[field.name] <= field.constraints["le"]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.key)
def test_a_knob_takes_the_ends_of_its_range_and_nothing_beyond(field: Any) -> None:
    least, most = field.constraints["ge"], field.constraints["le"]
    for value in (least, most):
        assert chosen({field.key: str(value)}) == {field.key: value}
    last = read({field.key: str(most)}, P, Knobs()).knobs
    for text in (str(least / 2), str(most + 1), "-1", "0", "many", "nan", "inf", " "):
        reading = read({field.key: text, "kepm.log.level": "Debug"}, P, last)
        assert set(reading.refused) == {field.key}
        told = reading.refused[field.key]
        assert repr(field.key) in told
        assert field.rule in told
        assert repr(text) in told
        assert getattr(reading.knobs, field.name) == most, "the last good one stays"
        assert reading.knobs.log_level == "Debug", "the others go on"
    assert chosen({field.key: ""}, last) == {}, "the empty text is the default"
    assert chosen({}, last) == {}


@pytest.mark.parametrize("text", ["Debug", "debug", " DEBUG"])
def test_a_level_is_one_of_the_agents_words_in_any_casing(text: str) -> None:
    assert chosen({"kepm.log.level": text}) == {"kepm.log.level": "Debug"}


def test_keys_are_found_in_any_casing_and_others_are_nobodys() -> None:
    assert chosen({"KEPM.Drain": "5", "drain": "x", "scan.kepm.drain": "x"}) == {"kepm.drain": 5}


def test_a_knob_that_is_spelt_twice_with_two_values_is_refused() -> None:
    reading = read({"KEPM.drain": "5", "kepm.DRAIN": "6"}, P, Knobs())
    assert "several values" in reading.refused["kepm.drain"]


def test_keys_that_are_no_knob_are_named_with_the_one_that_may_be_meant() -> None:
    reading = read({"kepm.hartbeat": "5", "Kepm.Journal.MaxMb": "5", "kepm.": "", "kepm.colour": "red"}, P, Knobs())
    assert reading.refused == {}
    assert reading.unknown == {
        "kepm.hartbeat": "kepm.heartbeat",
        "Kepm.Journal.MaxMb": "kepm.journal.max_mb",
        "kepm.": "",
        "kepm.colour": "",
    }
    assert near_miss("kepm.log.levle") == "kepm.log.level"


def test_a_heartbeat_that_the_manifest_does_not_declare_cannot_be_switched_on() -> None:
    reading = read({"kepm.heartbeat": "5"}, Mute, Knobs())
    assert reading.knobs.heartbeat is None
    assert "its manifest does not declare Mute/Status" in reading.refused["kepm.heartbeat"]


@given(st.dictionaries(st.sampled_from(sorted(NAMES)), st.text() | st.integers().map(str) | st.floats().map(str)))
def test_any_texts_are_taken_or_refused_one_by_one(values: dict[str, str]) -> None:
    reading = read(values, P, Knobs())
    for key, text in values.items():
        alone = read({key: text}, P, Knobs())
        assert getattr(reading.knobs, NAMES[key]) == getattr(alone.knobs, NAMES[key])
        assert reading.refused.get(key) == alone.refused.get(key)
    assert reading.refused.keys() <= values.keys()
