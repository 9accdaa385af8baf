"""Faults as values, and the table of those that are in force."""

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kepm_plugin.devagent import (
    ApiCut,
    ApiHangs,
    ApiLate,
    ApiRefused,
    ApiSlow,
    DropPuback,
    Duplicate,
    Fault,
    HalfOpen,
    MovePort,
    Mute,
    RefuseConnack,
    RefuseTcp,
    Reset,
    Slow,
    SuspendEngine,
    SuspendPlugin,
)
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import KINDS, ApiFault, read_fault
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import UsageError
from tests.devagent.conftest import Lines

API = (ApiCut, ApiHangs, ApiLate, ApiRefused, ApiSlow)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Reset, {"count": 0}, "Reset: count must be at least 1"),
        (Reset, {"seconds": 0}, "Reset: seconds must be more than 0"),
        (RefuseTcp, {}, "RefuseTcp needs seconds"),
        (RefuseTcp, {"count": 1}, "RefuseTcp has no count; give seconds"),
        (RefuseTcp, {"seconds": 1, "plugin": "P"}, "RefuseTcp concerns every plugin"),
        (MovePort, {"seconds": 1}, "MovePort has no seconds; it happens when it is set"),
        (MovePort, {"port": 80}, "port must be from 1024"),
        (Slow, {"seconds": 1}, "give bytes_per_second, delay, or both"),
        (Slow, {"seconds": 1, "bytes_per_second": 0}, "bytes_per_second must be more than 0"),
        (Slow, {"seconds": 1, "bytes_per_second": 1, "delay": -1}, "delay must not be negative"),
        (RefuseConnack, {"code": 0}, "code must be from 1 to 255"),
        (Duplicate, {"every": 0}, "every must be at least 1"),
        (DropPuback, {"direction": "up"}, "direction is 'to plugin' or 'from plugin'"),
        (KINDS["ApiRefused"], {"status": 200}, "status must be from 400 to 599"),
        (ApiSlow, {"delay": 0}, "delay must be more than 0"),
        (ApiLate, {"delay": 0}, "delay must be more than 0"),
        *((kind, {"method": "put"}, "method is 'GET', 'PUT', 'POST', or '' for all") for kind in API),
        (SuspendPlugin, {"seconds": 1}, "SuspendPlugin: name the plugin"),
    ],
)
def test_an_impossible_fault_is_refused_with_the_reason(
    kind: type[Fault], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**values)


@given(kind=st.sampled_from(sorted(KINDS)), count=st.none() | st.integers(1, 9), seconds=st.none() | st.integers(1, 9))
def test_a_fault_is_the_same_after_the_control_channel(kind: str, count: int | None, seconds: int | None) -> None:
    values: dict[str, Any] = {"kind": kind}
    if KINDS[kind].extent == "either":
        values |= {"count": count} if count else {}
    if KINDS[kind].extent != "moment":
        values |= {"seconds": seconds} if seconds else {}
    if KINDS[kind].extent == "seconds":
        values["seconds"] = 3.0
    if kind == "Slow":
        values["delay"] = 2.0
    if kind == "SuspendPlugin":
        values["plugin"] = "P"
    fault = read_fault(values)
    assert fault.values() == values
    assert read_fault(fault.values()) == fault


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no fault None; there are: Reset, HalfOpen"),
        ({"kind": "Fault"}, "no fault 'Fault'"),
        ({"kind": "Reset", "often": 1}, "Reset: .*often"),
        ({"kind": "Reset", "count": "many"}, "Reset: .*str"),
    ],
)
def test_what_is_no_fault_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_fault(values)


async def test_a_fault_is_announced_acts_as_often_as_it_says_and_ends() -> None:
    lines = Lines()
    faults = Faults(Terminal(echo=lines))
    over: list[int] = []
    assert faults.arm(HalfOpen(count=2, plugin="P"), lambda: over.append(1)) == 1
    assert faults.find(HalfOpen, "P") == HalfOpen(count=2, plugin="P")
    assert faults.take(HalfOpen, "Q") is None
    assert faults.take(Mute, "P") is None
    assert faults.take(HalfOpen, "P", lambda fault: fault.count == 3) is None
    assert faults.take(HalfOpen, "P") is not None
    assert faults.active() == [{"number": 1, "acted": 1, "left": 1, "kind": "HalfOpen", "count": 2, "plugin": "P"}]
    assert faults.take(HalfOpen, "P") is not None
    assert faults.take(HalfOpen, "P") is None
    assert (faults.active(), over, faults.counts) == ([], [1], {"HalfOpen": 2})
    assert [line.split(maxsplit=1)[1] for line in lines.seen] == [
        "fault 1: HalfOpen(count=2, plugin='P')",
        "fault 1 is over: HalfOpen, acted 2 times",
    ]


async def test_a_fault_ends_when_its_time_is_over() -> None:
    lines = Lines()
    faults = Faults(Terminal(echo=lines))
    faults.arm(SuspendEngine(seconds=0.01))
    faults.arm(Mute(seconds=0.01))
    assert faults.take(Mute, None) is not None
    assert faults.take(Mute, "P") is not None
    with anyio.fail_after(5):
        await lines.wait_for("fault 1 is over: SuspendEngine, acted 1 times")
        await lines.wait_for("fault 2 is over: Mute, acted 2 times")
    assert not faults.any(Mute)


async def test_faults_are_cleared_one_by_one_or_all_together() -> None:
    faults = Faults(Terminal(echo=Lines()))
    for number in (1, 2, 3):
        assert faults.arm(ApiSlow(count=5)) == number
    assert faults.any(ApiFault)
    faults.clear(2)
    faults.clear(2)
    assert [row["number"] for row in faults.active()] == [1, 3]
    faults.close()
    assert faults.active() == []
    with pytest.raises(UsageError, match="no fault 4; the last one was 3"):
        faults.clear(4)
