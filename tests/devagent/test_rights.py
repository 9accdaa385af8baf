"""Which topics the declared filters cover."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.devagent.rights import Rights, covers, well_formed

levels = st.sampled_from(["a", "b", "+", ""])
names = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=4).map("/".join)
filters = st.tuples(st.lists(levels, min_size=1, max_size=4), st.booleans()).map(
    lambda parts: "/".join([*parts[0], *(["#"] if parts[1] else [])])
)


@pytest.mark.parametrize(
    ("declared", "requested", "covered"),
    [
        ("X/scan", "X/scan", True),
        ("X/+", "X/scan", True),
        ("X/+", "X/+", True),
        ("X/scan", "X/+", False),
        ("X/+", "X/#", False),
        ("X/#", "X/#", True),
        ("X/#", "X/+/y", True),
        ("X/#", "X", True),
        ("X/+", "X", False),
        ("X", "X/y", False),
        ("X/+/y", "X/+/+", False),
        ("#", "anything/at/all", True),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("x/scan", "X/scan", False),
        ("X//y", "X//y", True),
        ("X/+", "X/", True),
    ],
)
def test_a_declared_filter_covers_a_requested_one(declared: str, requested: str, covered: bool) -> None:
    assert covers(declared, requested) is covered


@given(filters, filters, names)
def test_what_is_covered_matches_nothing_more(declared: str, requested: str, name: str) -> None:
    if covers(declared, requested) and covers(requested, name):
        assert covers(declared, name)


@given(filters)
def test_every_filter_covers_itself_and_is_well_formed(name: str) -> None:
    assert covers(name, name)
    assert well_formed(name) == bool(name)


@pytest.mark.parametrize("name", ["", "a/#/b", "a#", "a+/b", "a\0b", "x" * 70_000])
def test_a_malformed_filter_is_seen(name: str) -> None:
    assert not well_formed(name)


def test_the_primary_topic_may_be_subscribed_though_it_is_not_listed() -> None:
    rights = Rights.declared(["KeeperLogger", "P/Responses/+"], ["P/Commands/+"], "P")
    assert rights.may_subscribe("P")
    assert rights.may_subscribe("P/Commands/scan")
    assert rights.may_subscribe("$share/group/P/Commands/scan")
    assert not rights.may_subscribe("$share/group/Q/Commands/scan")
    assert not rights.may_publish("P")
    assert rights.may_publish("P/Responses/scan")
    assert not Rights.declared([], [], None).may_subscribe("P")
