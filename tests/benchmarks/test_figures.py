"""Statistics, bars and tables of the benchmarks."""

import json

import pytest

from tests.benchmarks.figures import Bar, Measured, Row, Sense, in_turn, ratios
from tests.benchmarks.log_calls import AT_ONCE, call
from tests.benchmarks.meter import Meter
from tests.benchmarks.payload import PAYLOAD, TOPIC, topics
from tests.benchmarks.source import bursts
from tests.benchmarks.table import medians, table


@pytest.mark.parametrize(
    ("sense", "figure", "holds"),
    [("<=", 1.29, True), ("<=", 1.3, True), ("<=", 1.31, False), (">=", 1.29, False), (">=", 1.3, True)],
)
def test_a_bar_holds_up_to_its_limit(sense: Sense, figure: float, holds: bool) -> None:
    assert Row("x", [figure], bar=Bar(sense, 1.3)).holds is holds


def test_a_figure_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    samples = {"ours": [{"cpu": 1.0}, {"cpu": 8.0}, {"cpu": 3.0}], "peer": [{"cpu": 2.0}, {"cpu": 10.0}, {"cpu": 1.0}]}
    row = Row("x", ratios(samples, "ours", "peer", "cpu"), bar=Bar("<=", 0.8))
    assert row.values == [0.5, 0.8, 3.0]
    assert row.figure == 0.8
    assert row.holds


def test_peers_with_different_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios({"ours": [{"cpu": 1.0}], "peer": []}, "ours", "peer", "cpu")


def test_each_round_has_all_peers_and_another_one_first() -> None:
    turns = list(in_turn(["a", "b", "c"], 4))
    assert [peer for _, peer in turns] == [*"abc", *"bca", *"cab", *"abc"]
    assert [number for number, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


MEASURED = Measured(
    "receive",
    {"ours": [{"CPU us": 10.0, "peak MiB": 40.0}, {"CPU us": 30.0, "peak MiB": 40.0}], "peer": [{"CPU us": 1234.0}]},
    [Row("missed", [1.0, 3.0, 2.0], bar=Bar("<=", 1.5)), Row("held", [2.0], "ms", Bar(">=", 1.0)), Row("shown", [7.0])],
)


def test_the_table_has_a_row_for_each_figure_and_names_what_is_missed() -> None:
    _, missed, held, shown = [line.split() for line in table(MEASURED.rows).splitlines()]
    assert missed == ["missed", "2.00", "1.00", "3.00", "<=", "1.5", "NO"]
    assert held == ["held", "2.00", "ms", "2.00", "2.00", ">=", "1", "yes"]
    assert shown == ["shown", "7.00", "7.00", "7.00"]


def test_the_medians_of_each_peer_are_shown_also_where_one_has_fewer_figures() -> None:
    heads, ours, peer = [line.split() for line in medians(MEASURED).splitlines()]
    assert heads == ["receive", "CPU", "us", "peak", "MiB"]
    assert ours == ["ours", "20.0", "40.0"]
    assert peer == ["peer", "1,234", "-"]


def test_what_is_written_can_be_read_and_has_every_sample() -> None:
    read = json.loads(json.dumps(MEASURED.as_json()))
    assert read["samples"]["ours"][1]["CPU us"] == 30.0
    assert read["medians"]["ours"]["CPU us"] == 20.0
    assert [(row["bar"], row["holds"]) for row in read["rows"]] == [("<= 1.5", False), (">= 1", True), (None, None)]


# --- inside the measured processes ------------------------------------------------------------------------------------


def test_a_meter_tells_of_the_first_message_and_of_the_last_one_of_each_burst(
    capsys: pytest.CaptureFixture[str],
) -> None:
    meter, told = Meter(3), list[list[str]]()
    for _ in range(7):
        meter.message()
        told.append([json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()])
    assert told == [["ready"], [], [], ["drained"], [], [], ["drained"]]


async def test_every_log_call_is_made_with_a_pause_after_each_burst(capsys: pytest.CaptureFixture[str]) -> None:
    class Log:
        """Counts calls."""

        calls = 0

        def info(self, event: str, **fields: object) -> None:
            self.calls += 1

    log, seen = Log(), list[int]()

    async def sleep(seconds: float) -> None:
        seen.append(log.calls)

    await call(log, AT_ONCE, AT_ONCE + 5, sleep)
    assert seen == [AT_ONCE, AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 5]
    begin, called = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (begin["event"], called["event"]) == ("begin", "called")


def test_a_burst_has_the_topics_of_all_handlers_in_turn() -> None:
    some = bursts(2, 1, 3)
    first, second = next(some), next(some)
    assert [first.count(topic.encode()) for topic in topics(3)] == [1, 1, 0]
    assert [second.count(topic.encode()) for topic in topics(3)] == [1, 0, 1]
    assert first.count(PAYLOAD) == second.count(PAYLOAD) == 2
    assert next(bursts(4, 0)).count(TOPIC.encode()) == 4
