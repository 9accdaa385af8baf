"""Both backends: what is tested here stands above `broker` and `agent`, and is plain anyio."""

from collections.abc import Generator

import pytest
import trio.testing

from kepm_plugin.store import Store, memory_store


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """On trio every sleep and deadline passes at once, in order; a test that uses threads asks for asyncio alone."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"debug": True}


@pytest.fixture
def clock(anyio_backend: tuple[str, dict[str, object]]) -> trio.testing.MockClock:
    """The clock of a test that runs on trio alone: its `jump` is a sleep of the machine."""
    clock = anyio_backend[1]["clock"]
    assert isinstance(clock, trio.testing.MockClock)
    return clock


@pytest.fixture
def store() -> Generator[Store]:
    """A store in memory."""
    with memory_store() as opened:
        yield opened


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of what the outbox has on disk lies in memory."""
    monkeypatch.setattr("kepm_plugin.outbox._disk.WINDOW", 4)
    monkeypatch.setattr("kepm_plugin.outbox._disk.PART", 3)
