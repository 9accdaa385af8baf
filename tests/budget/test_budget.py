"""No path takes more steps than its budget, and what has to be flat is flat; a regression would show."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from kepm_plugin.topics import Router
from tests.budget import __main__ as command
from tests.budget.budgets import Budgets
from tests.budget.counter import OURS, counted
from tests.budget.paths import PATHS, Cost

REPOSITORY: Final = Path(__file__).parents[2]
REFERENCE: Final = Cost(0.0, 125.0, {})
BUDGETS: Final = Budgets("3.11", 125.0, {"one": {"ours": 100.0, "libraries": 40.0}})


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Count in a process of its own: in this one, others take part in log calls, and coverage is measured."""
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
        env=environment,
    )


def complaints(ours: float, libraries: float = 40.0, **how: Any) -> list[str]:
    reference = how.pop("reference", REFERENCE)
    return BUDGETS.complaints({"one": Cost(ours, libraries, {"topics.py:find": 80.0})}, reference, minor="3.11", **how)


def test_every_path_keeps_to_its_budget_and_what_has_to_be_flat_is() -> None:
    done = run("tests.budget")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in PATHS)


def test_one_more_call_for_each_message_exceeds_the_budget() -> None:
    done = run("tests.budget.planted", "call", "routing a topic", "publishing from any thread", "decoding a payload")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "'routing a topic' takes" in done.stdout
    assert "'publishing from any thread' takes" in done.stdout
    assert "'decoding a payload' takes" not in done.stdout
    assert "planted.py:calling.<locals>.slowed_down" in done.stdout
    assert "python -m tests.budget --write" in done.stdout


def test_a_search_through_all_handlers_is_not_flat() -> None:
    done = run(
        "tests.budget.planted", "search", "routing, 1 filter and 1,000", "publishing while 100 and while 5,000 wait"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "'routing, 1 filter and 1,000':" in done.stdout
    assert "'publishing while 100 and while 5,000 wait':" not in done.stdout


@pytest.mark.parametrize(
    ("ours", "libraries", "said"),
    [
        (100.0, 40.0, None),
        (105.0, 40.0, None),  # less than a call
        (106.0, 40.0, "'one' takes 106.0 steps of the framework's code, 6.0 more than its budget of 100.0"),
        (100.0, 61.0, None),  # a release of a library
        (100.0, 62.0, "'one' takes 62.0 steps of libraries, 22.0 more than its budget of 40.0"),
        (85.0, 40.0, None),
        (84.0, 40.0, "'one' takes 84.0 steps of the framework's code, and has a budget of 100.0, which would hide"),
    ],
)
def test_a_budget_is_exceeded_by_less_than_a_call_and_says_which_by_how_much_and_where(
    ours: float, libraries: float, said: str | None
) -> None:
    found = complaints(ours, libraries)
    assert [text.partition(said or "?")[1] for text in found] == ([] if said is None else [said])
    assert all("python -m tests.budget --write" in text for text in found)
    assert all("80.0  topics.py:find" in text for text in found if "more than" in text)


def test_another_version_of_python_is_compared_by_what_its_reference_takes() -> None:
    faster = replace(REFERENCE, libraries=100.0)  # 0.8 of what the budgets' version takes

    def said(ours: float, reference: Cost) -> list[str]:
        return BUDGETS.complaints({"one": Cost(ours, 30.0, {})}, reference, minor="3.99")

    assert said(96.0, faster) == []
    assert "17.5 more than its budget of 80.0" in said(97.5, faster)[0]
    assert said(97.5, REFERENCE) == []
    assert said(10.0, faster) == []  # its own budgets are nowhere that could be written anew


def test_a_path_without_budget_and_a_budget_without_path_are_told() -> None:
    found: Mapping[str, Cost] = {"two": Cost(1.0, 1.0, {})}
    assert [text.partition(".")[0] for text in BUDGETS.complaints(found, REFERENCE, minor="3.11")] == [
        "'one' is not counted any more",
        "'two' has no budget",
    ]


def test_budgets_are_written_and_read(tmp_path: Path) -> None:
    made = Budgets.of({"one": Cost(1.25, 2.0, {}), "two": Cost(3.0, 0.0, {})}, REFERENCE)
    made.write(tmp_path / "budgets.json")
    read = Budgets.read(tmp_path / "budgets.json")
    assert read == made
    assert read.only(["two"]).paths == {"two": {"ours": 3.0, "libraries": 0.0}}


def test_the_count_is_the_same_each_time_and_another_tracer_is_put_back() -> None:
    router = Router([("A/+", 1)])
    router.find("A/b")

    def tracer(frame: FrameType, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with counted() as first:
            router.find("A/b")
        kept = sys.gettrace()
    finally:
        sys.settrace(before)
    with counted() as second:
        router.find("A/b")
    assert kept is tracer
    assert sys.gettrace() is before
    assert first.by_code == second.by_code
    assert first.total(True) > 10
    assert {code.co_filename.startswith(OURS) for code in first.by_code} == {True}


def test_a_path_that_there_is_not_is_an_error_that_names_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["sleeping"])
    assert "choose from 'routing a topic'" in capsys.readouterr().err
