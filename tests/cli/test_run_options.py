"""The options of `run`: read at once where they are as usual, by argparse otherwise, and the same by either."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.cli import _run

OPTIONS = ("--keeper-api-base", "--ca-bundle", "--data-dir", "--lock-dir", "--contract", "--peer")
VALUES = st.sampled_from(["https://127.0.0.1:6889", "/var/lib/x", "require", "warn", "a b", "", "x=y", "ä"])


@given(st.lists(st.tuples(st.sampled_from(OPTIONS), VALUES)))
def test_both_ways_read_the_same(pairs: list[tuple[str, str]]) -> None:
    given_ = [text for pair in pairs for text in pair if pair[0] != "--peer" or pair[1] in ("require", "warn")]
    at_once = _run.parsed("Worker", given_)
    # With a sign of equality argparse is asked.
    spelt = [f"{name}={value}" for name, value in zip(given_[::2], given_[1::2], strict=True)]
    assert _run.parsed("Worker", spelt) == at_once


def test_what_an_agent_gives_needs_no_argparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argparse", None)  # not to be imported
    read = _run.parsed("Worker", ["--keeper-api-base", "https://localhost:1", "--peer", "require", "--data-dir", "d"])
    assert (read.keeper_api_base, read.peer, read.data_dir) == ("https://localhost:1", "require", Path("d"))
    assert _run.parsed("Worker", []) == _run.RunArguments()


@pytest.mark.parametrize(
    "arguments",
    [["--peer", "no"], ["--nonsense", "1"], ["--data-dir"], ["--data-dir", "--peer"], ["word"], ["--data", "d"]],
)
def test_what_is_wrong_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _run.parsed("Worker", arguments)
    assert ended.value.code == 2
    assert "usage: Worker run" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _run.parsed("Worker", ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [name for name in OPTIONS if name not in shown] == []
