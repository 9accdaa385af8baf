"""One policy for both transports: each case refused or accepted as decided, before anything was sent; and the page."""

import re
from pathlib import Path
from typing import Final

import anyio
import pytest

from kepm_plugin.errors import PeerNotTrusted, UsageError
from tests.trust.cases import CASES, Case, Kit
from tests.trust.replaced import REPLACED, Replaced
from tests.trust.table import Row, rows, text

PAGE: Final = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The certificates."""
    return Kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
def played(kit: Kit) -> list[Row]:
    """What came of all cases, each played once for real."""
    return anyio.run(rows, kit)


def of(played: list[Row], name: str) -> Row:
    (row,) = (row for row in played if row.name == name)
    return row


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_ends_as_decided(played: list[Row], case: Case) -> None:
    row = of(played, case.name)
    https, mqtt = row.https.outcome, row.mqtt.outcome
    if case.said is None:
        assert (https.said, mqtt.said) == (None, None)
        assert row.https.heard.startswith(b"GET /api/PluginSettings/MyWorker ")
        assert row.mqtt.heard.startswith(b"\x10")
        assert b"MyWorker" in row.mqtt.heard
    else:
        # A bundle that was well at the start may be well again: the link tries it anew.
        link = PeerNotTrusted if case.said is UsageError else case.said
        assert (type(https.said), type(mqtt.said)) == (case.said, link)
        assert (https.ends, mqtt.ends) == (case.https, 72)
        assert (https.again, mqtt.again) == (case.https == 67, True)
        for said in (str(https.said), str(mqtt.said)):
            assert re.search(case.words, said), said
        assert (row.https.heard, row.mqtt.heard) == (b"", b""), "nothing was sent"
    for warnings in (row.https.warnings, row.mqtt.warnings):
        assert len(warnings) == (1 if case.warns else 0)


@pytest.mark.parametrize("case", [case for case in CASES if case.said is PeerNotTrusted], ids=lambda case: case.name)
def test_both_transports_refuse_in_the_same_words(played: list[Row], kit: Kit, case: Case) -> None:
    assert "MQTT:" not in of(played, case.name).cells(kit)[-1]


@pytest.mark.parametrize("case", REPLACED, ids=lambda case: case.name)
def test_a_certificate_that_is_replaced_counts_from_the_next_connection_on(played: list[Row], case: Replaced) -> None:
    row = of(played, case.name)
    for one in (row.https.outcome, row.mqtt.outcome):
        assert (one.said is None) is case.accepted
        assert case.accepted or isinstance(one.said, PeerNotTrusted)


def test_the_page_says_what_happens(played: list[Row], kit: Kit) -> None:
    assert text(played, kit) in PAGE.read_text("utf-8"), "print it anew: python -m tests.trust"
