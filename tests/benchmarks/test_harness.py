"""The harness itself, on what needs no extra: real processes, few messages."""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks.figures import Bar, Measured, Row
from tests.benchmarks.proc import memory, used
from tests.benchmarks.process import BenchmarkError, measured
from tests.benchmarks.scenes import receive
from tests.benchmarks.stage import Pythons, Size, Stage, staged

FEW = Size(rounds=1, messages=100, burst=50, publications=200, rest=0.2, settle=0.0)


@pytest.fixture(scope="module")
def stage() -> Generator[Stage]:
    """Everything on this environment's interpreter."""
    with staged(Pythons(ours=sys.executable, peers=sys.executable), FEW) as found:
        yield found


def test_receivers_are_measured_in_processes_of_their_own(stage: Stage) -> None:
    plain, secure = receive.measure(stage, {receive.LOOP: receive.PEERS[receive.LOOP]})
    assert set(plain.samples) == {receive.OURS, receive.LOOP}
    assert set(secure.samples) == {receive.OURS, receive.JOURNAL, receive.LOOP}
    for measurement in (plain, secure):
        for (sample,) in measurement.samples.values():
            assert all(figure > 0 for figure in sample.values())
    assert [str(row.bar) for row in (*plain.rows, *secure.rows)] == ["<= 0.45", "<= 0.45", "<= 0.6"]


def test_a_process_that_ends_too_early_is_told_of_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such broker')"]
    with measured(command, {}, tmp_path) as process, pytest.raises(BenchmarkError, match="no such broker"):
        process.told("ready")


def test_the_kernel_tells_memory_time_and_wake_ups_of_a_process() -> None:
    before = used(os.getpid())
    sum(range(1_000_000))
    assert used(os.getpid()).cpu > before.cpu
    found = memory(os.getpid())
    assert found["RSS MiB"] >= found["PSS MiB"] > 1


@pytest.mark.parametrize(("limit", "check", "code"), [(1.0, True, 1), (1.0, False, 0), (3.0, True, 0)])
def test_a_missed_bar_is_an_error_where_that_is_asked_for(
    limit: float, check: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row("figure", [2.0], bar=Bar("<=", limit))
    monkeypatch.setitem(command.SCENES, "log", lambda stage: [Measured("scene", {"ours": [{"us": 2.0}]}, [row])])
    written = tmp_path / "figures.json"
    assert command.main(["log", "--json", str(written), *(["--check"] if check else [])]) == code
    read = json.loads(written.read_text())
    assert read["scenes"][0]["rows"][0]["holds"] is (limit == 3.0)
    assert {"date", "machine", "mosquitto", "ours", "peers", "revision"} <= set(read)


def test_an_unknown_scene_is_an_error_that_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["sleep"])
    assert "choose from receive, handlers, publish, start, rest, log" in capsys.readouterr().err
