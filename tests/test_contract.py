"""`contract`: every item has a rule, and what is made of the items is what they say."""

from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.contract import ASSUMED, DOCUMENTED, ITEMS, Contract
from kepm_plugin.errors import UsageError

WORDS = st.sampled_from(["value", "{PluginId}", "{Random}", "{ProcessId}", "{Other}", "_", " ", "", "native", "ä"])
# Not with a line's end, before which `$` holds in Python and not in JSON Schema's own expressions.
TEXTS = st.lists(WORDS, max_size=4).map("".join) | st.text(st.characters(exclude_characters="\n"), max_size=8)
# Not 1.0, which is an integer to JSON Schema; TOML tells them apart.
SCALARS = TEXTS | st.integers(-3, 9) | st.booleans() | st.none() | st.just(0.5)
LISTS = st.lists(SCALARS, max_size=9) | st.lists(st.sampled_from(["a", "b", 1]), min_size=5, max_size=8)


@given(st.sampled_from(sorted(ITEMS)), SCALARS | LISTS)
def test_a_rule_and_its_schema_take_the_same(name: str, value: Any) -> None:
    made: object = tuple(cast("list[object]", value)) if isinstance(value, list) else value
    schema: Any = jsonschema.Draft202012Validator(dict(ITEMS[name].schema))
    assert ITEMS[name].holds(made) == schema.is_valid(value)


def test_every_item_has_a_rule_that_takes_what_is_assumed() -> None:
    assert list(ITEMS) == list(Contract.__struct_fields__)
    assert all(rule.holds(getattr(ASSUMED, name)) for name, rule in ITEMS.items())
    assert "SETTINGS_PATH" in DOCUMENTED


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ({"client_id": "worker"}, "client_id must be text with {PluginId} in it once"),
        ({"client_id": "{PluginId}{PluginId}"}, "once"),
        ({"client_id": "{PluginId}/{Random}"}, "client_id must be"),
        ({"client_id": "{PluginId}_{Uuid}"}, "client_id must be"),
        ({"client_id": "{PluginId}\n"}, "client_id must be"),
        ({"put_value_field": ""}, "put_value_field must be a property's name"),
        ({"put_value_form": "text"}, "put_value_form must be one of 'native', 'string', not 'text'"),
        ({"subscribe_primary_topic": 1}, "subscribe_primary_topic must be true or false, not 1"),
        ({"value_fields": ()}, "value_fields must be a list of 1 to 8"),
        ({"log_levels": (0, 1, 2, 3, 4)}, "log_levels must be a list of 6 words or whole numbers"),
        ({"log_levels": (True, 1, 2, 3, 4, 5)}, "log_levels must be"),
        ({"log_level_field": "Message"}, "log_message_field and log_level_field are both 'message'"),
        ({"answer_ok_field": "correlationId"}, "answer_ok_field and correlation_field are both 'correlationId'"),
        ({"status_state_field": "TIME"}, "status_time_field and status_state_field are both 'time'"),
    ],
)
def test_a_contract_that_cannot_be_is_refused_with_what_is_allowed(items: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Contract(**items)
    assert said in str(caught.value)


def test_only_what_differs_is_a_change() -> None:
    assert ASSUMED.changes() == {}
    assert Contract(put_value_field="value", put_tier="admin").changes() == {"put_tier": "admin"}


@pytest.mark.parametrize(
    ("template", "client_id"),
    [
        ("{PluginId}", "MyWorker"),
        ("{PluginId}_{Random}", "MyWorker_0a1b2c3d"),
        ("plugin-{PluginId}_{ProcessId}.{Random}", "plugin-MyWorker_4711.0a1b2c3d"),
    ],
)
def test_a_client_id_is_made_of_its_template(template: str, client_id: str) -> None:
    assert Contract(client_id=template).client_id_for("MyWorker", process=4711, random="0a1b2c3d") == client_id


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (3, "3"), (2.5, "2.5"), (True, "true"), (False, "false")])
def test_a_value_is_written_as_itself_or_as_text(value: str | float | bool, text: str) -> None:
    assert ASSUMED.put_body(value) == {"value": value}
    assert Contract(put_value_form="string", put_value_field="Value").put_body(value) == {"Value": text}


def record(contract: Contract) -> dict[str, Any]:
    return contract.log_record(
        timestamp="2026-06-30T10:30:00.250Z", level="Warning", source="P", message="m", fields={"n": 1, "path": "a b"}
    )


def test_a_log_record_is_made_of_its_items() -> None:
    assert record(ASSUMED) == {
        "timestamp": "2026-06-30T10:30:00.250Z",
        "level": "Warning",
        "source": "P",
        "message": "m",
        "n": 1,
        "path": "a b",
    }
    other = Contract(log_timestamp_form="milliseconds", log_levels=(0, 1, 2, 3, 4, 5), log_extra="message")
    assert record(other) == {"timestamp": 1782815400250, "level": 3, "source": "P", "message": 'm n=1 path="a b"'}
    assert record(Contract(log_timestamp_form="seconds"))["timestamp"] == 1782815400.25


def test_a_report_is_made_of_its_items() -> None:
    words = ("A", "B", "C", "D", "E", "F", "G")
    contract = Contract(status_state_field="Health", status_words=words, status_time_field="counters")
    report = contract.status(
        state="running", reason="", version="1", process=7, time=1.5, details={"counters": {"handled": 1}}
    )
    assert report == {
        "Health": "C",
        "reason": "",
        "version": "1",
        "processId": 7,
        "counters": 1.5,
        "counters_": {"handled": 1},
    }


def test_what_an_answer_says_is_read_as_it_is_written() -> None:
    contract = Contract(
        correlation_field="id",
        answer_ok_field="success",
        answer_result_field="data",
        answer_error_field="why",
        answer_progress_field="step",
    )
    assert contract.result(contract.answer_ok("1", [2])) == [2]
    assert contract.refusal(contract.answer_ok("1", [2])) is None
    assert contract.refusal(contract.answer_error("1", "no")) == "no"
    assert contract.is_interim(contract.answer_progress("1", 0.5))
    assert not contract.is_interim(contract.answer_error("1", "no"))
    assert contract.result({"id": "1", "bare": True}) == {"bare": True}
