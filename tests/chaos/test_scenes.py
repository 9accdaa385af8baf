"""The scenes in their short form: what they promise holds, and a report says where it does not."""

import json
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.chaos.__main__ import main
from tests.chaos.scenes import burst, engine, faults, flood, stuck
from tests.chaos.scenes.cases import CASES, Case
from tests.chaos.scenes.report import Report, Row
from tests.chaos.scenes.setting import Setting
from tests.chaos.scenes.stage import stage

SEED = "20"
AT_ONCE = 4
"""Scenes; each waits for processes most of the time."""

PATIENCE = 60.0
KEPT = "every promise was kept"
BAR = 15.0
"""Seconds for any fault: machines differ, the sharper bars are for the long form."""

FAULTS = ("reset", "duplicates", "new certificate", "other port", "plugin killed", "disk full, journal")
FLOODS = ("mosquitto, no journal", "embedded, QoS 0")

Pending = dict[str, Future[Report]]


def _patient(name: str) -> Case:
    return replace(next(case for case in CASES if case.name == name), bar=BAR)


@pytest.fixture(scope="module")
def reports() -> Generator[Pending]:
    """All scenes, some at a time."""
    floods = [kind for kind in flood.FLOODS if kind.name in FLOODS]
    with ThreadPoolExecutor(AT_ONCE, "scene") as pool:
        yield {
            "faults": pool.submit(faults.play, list(map(_patient, FAULTS)), 1, "mosquitto", SEED),
            "flood": pool.submit(flood.play, floods, 4_500),
            "forgetful": pool.submit(_forgetful),
            "engine": pool.submit(engine.play, ("nats", "mosquitto"), 2, SEED, BAR),
            "burst": pool.submit(burst.play, 1_500, 100),
            "stuck": pool.submit(stuck.play, ("mosquitto", "nats"), 1.0, 0.0, BAR),
        }


def _forgetful() -> Report:
    """Have a framework play that forgets what it was given."""
    report = Report("forgetful")
    with stage(Setting(forget=1, quiet=1.0)) as made:
        outcome = faults.Outcome(_patient("reset"))
        faults.inflict(made, outcome.case, outcome, Random(SEED))  # noqa: S311  no secret
        report.rows.extend([outcome.row(), burst.equal(made, 50)])
    setting = Setting(forget=0, quiet=1.0)
    with stage(setting) as made:
        report.rows.append(flood.flood(made, flood.Flood(name="QoS 0", setting=setting, qos=0), 200))
    return report


@pytest.mark.parametrize("scene", ["faults", "engine", "burst", "flood", "stuck"])
def test_a_scene_in_its_short_form_keeps_its_promises(reports: Pending, scene: str) -> None:
    report = reports[scene].result(PATIENCE)
    assert not report.broken, str(report)


def test_the_faults_that_were_played_did_something(reports: Pending) -> None:
    rows = {row.name: row.figures for row in reports["faults"].result(PATIENCE).rows}
    assert list(rows) == list(FAULTS)
    assert all(row["messages"] for row in rows.values())
    assert rows["duplicates"]["duplicates"], "what comes twice without an identity is two messages"


def test_a_scene_finds_what_a_forgetful_framework_loses(reports: Pending) -> None:
    broken = reports["forgetful"].result(PATIENCE).broken
    assert len(broken) == 3, broken
    assert "reset: lost: " in broken[0]
    assert "of 50 equal messages were handled" in broken[1]
    assert "40 messages at QoS 0 were neither handled nor counted" in broken[2]


def test_a_report_says_which_promise_was_broken() -> None:
    row = Row("one", {"max s": 7.5, "bar s": 5.0})
    row.promise(True, "kept")
    report = Report("faults", [row, Row("two", {"max s": 0.1})])
    assert str(report).splitlines() == ["faults  max s  bar s", "one       7.5    5.0", "two       0.1", KEPT]
    row.promise(False, "recovered too late")
    assert str(report).splitlines()[-1] == "BROKEN: one: recovered too late"
    assert report.as_json()["kept"] is False


def test_a_fault_that_does_nothing_or_is_not_survived_breaks_a_promise() -> None:
    case = _patient("reset")
    for outcome, words in (
        (faults.Outcome(case, recovered=[BAR + 0.1]), "recovered after more than 15 s"),
        (faults.Outcome(case, never=1), "nothing was handled any more in 1 rounds"),
        (faults.Outcome(case, idle=["acted 0 times"]), "the fault showed nothing: ['acted 0 times']"),
        (faults.Outcome(case, commands_again=1), "1 commands were handled twice"),
    ):
        assert outcome.row().broken == [words]


def test_the_command_line_writes_the_figures_down_and_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("mosquitto", {"kills": 2}, ["lost: [7]"])

    def played(*_: object) -> Row:
        return row

    monkeypatch.setattr(engine, "row", played)
    assert main(["engine", "--seed", "9", "--kills", "2", "--broker", "mosquitto", "--json", f"{tmp_path}/it"]) == 1
    assert "BROKEN: mosquitto: lost: [7]" in capsys.readouterr().out
    assert json.loads((tmp_path / "it").read_text()) == {
        "seed": "9",
        "scene": "engine",
        "kept": False,
        "rows": [{"name": "mosquitto", "kills": 2, "broken": ["lost: [7]"]}],
    }
    row.broken.clear()
    assert main(["engine"]) == 0
