"""Topics: what may be declared, what a filter matches, and which handler a topic finds."""

import re
from ast import literal_eval
from collections.abc import Iterable
from functools import cache
from itertools import product

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin.errors import BadTopic
from kepm_plugin.topics import (
    MAX_BYTES,
    Pattern,
    Router,
    check_filter,
    check_topic,
    covers,
    matches,
    overlap,
    widest,
)

# A loaded machine is no failure: hypothesis builds its tables of characters at the first use.
PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS = ("a", "b", "", "$s")
TOPICS = tuple("/".join(levels) for depth in (1, 2, 3, 4) for levels in product(WORDS, repeat=depth))
"""Every topic of up to four levels over a small alphabet: enough to tell filters of up to three levels apart."""


def filters() -> st.SearchStrategy[str]:
    levels = st.lists(st.sampled_from((*WORDS, "+")), max_size=3)
    rests: st.SearchStrategy[list[str]] = st.sampled_from(([], ["#"]))
    return st.tuples(levels, rests).map(lambda parts: "/".join(parts[0] + parts[1])).filter(bool)


def naive(topic_filter: str, topic: str) -> bool:
    """MQTT 5.0, section 4.7, as a regular expression."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    levels = topic_filter.split("/")
    rest = levels[-1] == "#"
    parts = ["[^/]*" if level == "+" else re.escape(level) for level in (levels[:-1] if rest else levels)]
    if rest and not parts:
        return True
    return re.fullmatch("/".join(parts) + ("(/.*)?" if rest else ""), topic) is not None


@cache
def topics_of(topic_filter: str) -> frozenset[str]:
    return frozenset(topic for topic in TOPICS if naive(topic_filter, topic))


# --- declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "topic_filter", "params"),
    [
        ("", "MyWorker", ()),
        ("Events", "MyWorker/Events", ()),
        ("Events/{host}", "MyWorker/Events/+", ("host",)),
        ("{a}/{b}", "MyWorker/+/+", ("a", "b")),
        ("Files/{where:path}", "MyWorker/Files/#", ("where",)),
        ("{where:path}", "MyWorker/#", ("where",)),
        ("{path}", "MyWorker/+", ("path",)),
        ("{_a1}", "MyWorker/+", ("_a1",)),
        ("with space/ünï", "MyWorker/with space/ünï", ()),
        ("$data", "MyWorker/$data", ()),
        ("/KeeperPolicy/Responses/{name}", "KeeperPolicy/Responses/+", ("name",)),
        ("/{any}", "+", ("any",)),
        ("/{all:path}", "#", ("all",)),
        ("/$SYS/uptime", "$SYS/uptime", ()),
        ("//leading", "/leading", ()),
        ("//{name}", "/+", ("name",)),
    ],
)
def test_a_declaration_becomes_a_filter(text: str, topic_filter: str, params: tuple[str, ...]) -> None:
    pattern = Pattern.parse(text)
    pattern.check_owner("MyWorker")
    assert (pattern.filter("MyWorker"), pattern.params) == (topic_filter, params)
    check_filter(topic_filter)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Events/+", "write 'Events/{name}'"),
        ("+", "write '{name}'"),
        ("#", "write '{rest:path}'"),
        ("/#", "write '/{rest:path}'"),
        ("Events/+/state/+", "write 'Events/{level1}/state/{level2}'"),
        ("Events/+/#", "write 'Events/{name}/{rest:path}'"),
        ("{name}/+", "write '{name}/{level1}'"),
        ("Events/#/more", "write '{name}' for '+', and '{name:path}' for a '#' in the last level"),
        ("Events/web+", "the level 'web+' holds '+' or '#'"),
        ("C#", "the level 'C#' holds '+' or '#'"),
        ("Events//x", "level 2 is empty; write 'Events/x'"),
        ("Events/", "level 2 is empty; write 'Events'"),
        ("/KeeperPolicy//x/", "level 2 is empty; write '/KeeperPolicy/x'"),
        ("///x", "level 2 is empty; write '//x'"),
        ("/", "slashes alone name no topic; write the absolute topic after one, as in '/KeeperPolicy'"),
        ("//", "slashes alone name no topic"),
        ("scan-{host}", "a parameter is a whole level, unlike in 'scan-{host}'; put it between slashes"),
        ("{a}{b}", "a parameter is a whole level"),
        ("{a", "a parameter is a whole level"),
        ("a}", "a parameter is a whole level"),
        ("{}", "write '{name}'"),
        ("{host-name}", "only letters, digits and '_', unlike '{host-name}'; write '{host_name}'"),
        ("{1}", "write '{_1}'"),
        ("{hôte}", "write '{h_te}'"),
        ("{host:int}", "there is no kind ':int' of parameter, only ':path'; write '{host}'"),
        ("{rest:path}/x", "'{rest:path}' stands for the rest and must be the last level; write '{rest}'"),
        ("{host}/{host}", "the parameter 'host' is used twice; give each level its own name"),
        ("/$share/group/x", "shared subscriptions are not for plugins; leave out the '$share' level"),
        ("/$QUEUE/x", "shared subscriptions are not for plugins"),
        ("tab\there", "control characters are not allowed in topics; remove them"),
        ("nul\0", "control characters are not allowed in topics; remove them"),
        ("\x9f", "control characters are not allowed in topics; remove them"),
        ("\ud800", "it is not valid Unicode; remove the lone surrogate"),
        pytest.param("ü" * 40_000, "is 80000 bytes long, MQTT allows 65535; shorten it", id="long"),
    ],
)
def test_a_wrong_declaration_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(BadTopic) as caught:
        Pattern.parse(text)
    assert said in str(caught.value)
    assert caught.value.reason in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("text", [None, 42, b"Events", int])
def test_a_topic_that_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(BadTopic, match="a topic is a text"):
        Pattern.parse(text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@PATIENT
@given(
    st.one_of(
        st.text(max_size=20),
        st.lists(st.sampled_from(("a", "+", "#", "a+", "", "{a}", "{name}", "{a:path}", "{a:b}", "{a-b}", "{}"))).map(
            "/".join
        ),
    )
)
def test_following_the_proposed_spellings_ends_in_a_declaration_or_without_a_proposal(text: str) -> None:
    for _ in range(3):
        try:
            check_filter(Pattern.parse(text).filter("MyWorker"))
        except BadTopic as exc:
            proposal = re.search(r"(?:is empty|names its levels); write (['\"].*)(?<! last level)$", exc.reason)
            if proposal is None:
                return
            text = literal_eval(proposal[1])
        else:
            return
    pytest.fail(f"{text!r} is proposed, and refused again")


@pytest.mark.parametrize(
    ("text", "better"),
    [
        ("MyWorker/Commands/scan", "Commands/scan"),
        ("/MyWorker/Commands/scan", "Commands/scan"),
        ("/myworker/{host}", "{host}"),
        ("MyWorker", ""),
    ],
)
def test_the_own_id_as_first_level_is_refused_with_the_relative_spelling(text: str, better: str) -> None:
    with pytest.raises(BadTopic) as caught:
        Pattern.parse(text).check_owner("MyWorker")
    assert str(caught.value) == (
        f"topic {text!r}: topics are relative to the plugin's id, 'MyWorker'; write {better!r}"
    )


@pytest.mark.parametrize("text", ["MyWorkers/x", "x/MyWorker", "{MyWorker}", "//MyWorker", ""])
def test_other_first_levels_are_no_own_id(text: str) -> None:
    Pattern.parse(text).check_owner("MyWorker")


# --- from a pattern to a topic and back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values", "topic"),
    [
        ("", {}, "MyWorker"),
        ("Findings/{severity}", {"severity": "high"}, "MyWorker/Findings/high"),
        ("{a}/x/{b}", {"b": "2", "a": "1"}, "MyWorker/1/x/2"),
        ("Files/{where:path}", {"where": "etc/sudoers.d"}, "MyWorker/Files/etc/sudoers.d"),
        ("/Other/{x}", {"x": "$y"}, "Other/$y"),
        ("//{x}", {"x": "y"}, "/y"),
    ],
)
def test_values_fill_the_levels_and_come_back(text: str, values: dict[str, str], topic: str) -> None:
    pattern = Pattern.parse(text)
    assert pattern.topic("MyWorker", values) == topic
    assert pattern.values("MyWorker", topic) == values


@pytest.mark.parametrize("value", ["", "a/b", "+", "#", "a#", "\0", "a/", "\n"])
def test_a_value_that_is_no_level_is_refused(value: str) -> None:
    with pytest.raises(BadTopic):
        Pattern.parse("Findings/{severity}").topic("MyWorker", {"severity": value})


@pytest.mark.parametrize("value", ["", "a//b", "/a", "a/", "a/+", "#"])
def test_a_rest_that_holds_no_levels_is_refused(value: str) -> None:
    with pytest.raises(BadTopic, match="cannot stand for 'where'"):
        Pattern.parse("Files/{where:path}").topic("MyWorker", {"where": value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "topic 'Findings/{severity}': needs a value for 'severity'; pass severity=\"…\""),
        ({"severity": "x", "y": "1", "x": "1"}, "has no parameter x, y; its parameters: severity"),
        (
            {"severity": 3},
            "topic '3': cannot stand for 'severity' of 'Findings/{severity}': a level is a text; use str()",
        ),
        ({"severity": "a/b"}, "topic 'a/b': cannot stand for 'severity' of 'Findings/{severity}'"),
    ],
)
def test_wrong_values_are_named(values: dict[str, str], said: str) -> None:
    with pytest.raises(BadTopic) as caught:
        Pattern.parse("Findings/{severity}").topic("MyWorker", values)
    assert said in str(caught.value)


def test_a_topic_without_parameters_takes_none() -> None:
    with pytest.raises(BadTopic, match="has no parameter severity; its parameters: none"):
        Pattern.parse("Findings").topic("MyWorker", {"severity": "high"})


def test_a_topic_that_grows_too_long_is_refused() -> None:
    with pytest.raises(BadTopic, match="MQTT allows 65535"):
        Pattern.parse("x/{y}").topic("MyWorker", {"y": "z" * MAX_BYTES})


@pytest.mark.parametrize(
    "text", ["{a}", "b/{a}", "{a}/{b}", "a/{a}/{b:path}", "{a:path}", "/{a}", "/$s/{a:path}", "//{a}"]
)
def test_values_of_a_matching_topic_give_that_topic_again(text: str) -> None:
    pattern, seen = Pattern.parse(text), 0
    for one in TOPICS:
        topic = one if text.startswith("/") else f"Id/{one}"
        if not matches(pattern.filter("Id"), topic):
            continue
        values = pattern.values("Id", topic)
        assert set(values) == set(pattern.params)
        if "" not in "/".join(values.values()).split("/"):
            assert pattern.topic("Id", values) == topic
            seen += 1
    assert seen


def test_a_rest_of_nothing_is_empty() -> None:
    pattern = Pattern.parse("Files/{where:path}")
    assert [pattern.values("Id", topic) for topic in ("Id/Files", "Id/Files/")] == [{"where": ""}] * 2


# --- topics and filters as they travel --------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["a", "a/b", "/a", "a//b", "$SYS/x", " ", "a b"])
def test_a_concrete_topic_can_be_published_to(topic: str) -> None:
    check_topic(topic)


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("", "a topic cannot be empty; name at least one level"),
        ("a/+", "'+' and '#' are for subscriptions; publish to a concrete topic"),
        ("a#", "'+' and '#' are for subscriptions"),
        ("a\0", "control characters"),
    ],
)
def test_what_is_no_topic_cannot_be_published_to(topic: str, said: str) -> None:
    with pytest.raises(BadTopic, match=re.escape(said)):
        check_topic(topic)


@pytest.mark.parametrize("topic_filter", ["a", "+", "#", "a/+/b", "a/#", "/", "/+", "$SYS/#", "+/#"])
def test_a_filter_can_be_subscribed(topic_filter: str) -> None:
    check_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "said"),
    [
        ("", "a filter cannot be empty; name at least one level"),
        ("a+", "a wildcard stands alone in its level, unlike 'a+'"),
        ("a/#b", "a wildcard stands alone in its level, unlike '#b'"),
        ("a/#/b", "'#' is allowed in the last level only"),
        ("a\x01", "control characters"),
    ],
)
def test_what_is_no_filter_cannot_be_subscribed(topic_filter: str, said: str) -> None:
    with pytest.raises(BadTopic, match=re.escape(said)):
        check_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("#", "a/b", True),
        ("#", "/a", True),
        ("+/+", "/a", True),
        ("+", "/a", False),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("$SYS/+", "$SYS/uptime", True),
        ("a/+", "a/$b", True),
        ("a/#", "a/$b", True),
    ],
)
def test_a_filter_matches_a_topic(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@PATIENT
@given(filters(), st.sampled_from(TOPICS))
def test_matching_is_what_mqtt_says(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) is naive(topic_filter, topic)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a/#", "a", True),
        ("a/#", "a/+", True),
        ("a/#", "a/+/#", True),
        ("a/#", "a/#", True),
        ("a/+/#", "a/#", False),
        ("a/+", "a/#", False),
        ("a/+", "a/+", True),
        ("a/b", "a/+", False),
        ("#", "+/#", True),
        ("#", "$SYS/#", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/+", True),
    ],
)
def test_a_filter_covers_another(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected


@PATIENT
@given(filters(), filters())
def test_covering_means_that_no_topic_is_left_out(wide: str, narrow: str) -> None:
    everything = wide.startswith("+/") and wide.endswith("/#") and narrow.startswith("#")
    if not everything:  # `#` and `+/#` say the same; only `#` counts as the wider one
        assert covers(wide, narrow) is (topics_of(narrow) <= topics_of(wide))


@PATIENT
@given(filters(), filters())
def test_filters_overlap_where_some_topic_falls_under_both(first: str, second: str) -> None:
    assert overlap(first, second) is bool(topics_of(first) & topics_of(second))
    assert overlap(first, second) is overlap(second, first)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a/+", "+/b", True),
        ("a/#", "a", True),
        ("a/+/#", "a", False),
        ("a/", "a", False),
        ("a//#", "a", False),
        ("#", "$SYS/#", False),
        ("+/a", "$SYS/a", False),
    ],
)
def test_filters_overlap(first: str, second: str, expected: bool) -> None:
    assert overlap(first, second) is expected


@PATIENT
@given(st.lists(filters(), max_size=5))
def test_the_widest_filters_bring_the_same_topics_and_none_can_go(given_filters: list[str]) -> None:
    kept = widest(given_filters)
    assert set(kept) <= set(given_filters)
    assert kept == sorted(set(kept))
    assert _union(kept) == _union(given_filters)
    assert not any(covers(one, other) for one in kept for other in kept if one != other)


def test_widest_drops_what_another_filter_covers() -> None:
    assert widest(["a/b", "a/+", "c", "a/#", "c", "$SYS/x", "+"]) == ["$SYS/x", "+", "a/#"]


def _union(chosen: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(topics_of(one) for one in chosen))


# --- routing ----------------------------------------------------------------------------------------------------------


def most_specific(candidates: Iterable[str], topic: str) -> str | None:
    """Level by level: a literal before `+` before `#`; what ends with the topic before a `#` for nothing more."""

    def rank(topic_filter: str) -> list[int]:
        ranks = [{"+": 1, "#": 2}.get(level, 0) for level in topic_filter.split("/")]
        return [*ranks, -1]

    return min((one for one in candidates if naive(one, topic)), key=rank, default=None)


@PATIENT
@given(st.sets(filters(), max_size=8), st.lists(st.sampled_from(TOPICS), min_size=1, max_size=10))
def test_a_topic_finds_its_most_specific_filter(chosen: set[str], topics: list[str]) -> None:
    router = Router((one, one) for one in sorted(chosen))
    assert [router.find(topic) for topic in topics] == [most_specific(chosen, topic) for topic in topics]


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("W/Commands/scan", "literal"),
        ("W/Commands/reset", "one level"),
        ("W/Commands/scan/x", "below scan"),
        ("W/Commands/reset/x", "all below"),
        ("W/Commands", "all below"),
        ("W/Events/a/end", "literal end"),
        ("W/Events/a/other", "any/other"),
        ("W/Nothing", None),
        ("$SYS/x", None),
        ("$SYS", None),
        ("$queue/x", "hidden"),
    ],
)
def test_one_value_is_found_per_topic(topic: str, found: str | None) -> None:
    router = Router(
        [
            ("W/Commands/#", "all below"),
            ("W/Commands/+", "one level"),
            ("W/Commands/scan", "literal"),
            ("W/Commands/scan/+", "below scan"),
            ("W/Events/a/end", "literal end"),
            ("W/Events/+/other", "any/other"),
            ("$queue/+", "hidden"),
        ]
    )
    assert router.find(topic) == found


def test_wildcards_in_the_first_level_do_not_reach_dollar_topics() -> None:
    router = Router([("#", "rest"), ("+", "one"), ("+/x", "two")])
    assert [router.find(topic) for topic in ("$SYS", "$SYS/x", "a", "a/x", "a/y")] == [None, None, "one", "two", "rest"]


def test_a_long_topic_costs_no_recursion() -> None:
    assert Router([("a/#", 1)]).find("a/" * 30_000) == 1
