"""A machine that sleeps, by its clocks."""

import time

import pytest

from kepm_plugin.suspension import Suspension, clock_that_goes_on


class Machine:
    """Two clocks; the one stands still in a suspend."""

    def __init__(self) -> None:
        self.stops, self.goes_on = 100.0, 5_000.0
        self.suspension = Suspension(lambda: self.stops, lambda: self.goes_on)

    def runs(self, seconds: float) -> None:
        self.stops, self.goes_on = self.stops + seconds, self.goes_on + seconds

    def sleeps(self, seconds: float) -> None:
        self.goes_on += seconds


def test_a_machine_that_runs_has_not_slept() -> None:
    machine = Machine()
    machine.runs(100_000)
    assert machine.suspension() == 0


def test_each_suspend_is_added_whenever_one_asks() -> None:
    machine = Machine()
    machine.sleeps(3600)
    assert machine.suspension() == machine.suspension() == 3600
    machine.runs(10)
    machine.sleeps(60)
    machine.sleeps(40)
    assert machine.suspension() == 3700


def test_clocks_that_were_not_read_at_one_moment_make_no_suspend() -> None:
    machine = Machine()
    for apart in (0.2, -0.2, 0.9, -0.9):
        machine.goes_on += apart
        assert machine.suspension() == 0
        machine.goes_on -= apart


def test_what_was_slept_before_does_not_count() -> None:
    machine = Machine()
    machine.sleeps(3600)
    assert Suspension(lambda: machine.stops, lambda: machine.goes_on)() == 0


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_clock_of_each_system_runs_as_fast_as_the_other(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform == "win32":
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert Suspension(goes_on=clock_that_goes_on(platform))() == 0
    assert (clock_that_goes_on(platform) is time.monotonic) is (platform == "win32")


def test_of_linux_the_clock_is_taken_that_goes_on_in_a_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 77.0}.__getitem__)
    assert clock_that_goes_on("linux")() == 77.0
