"""Both backends: what is tested here stands above `broker` and `agent`, and is plain anyio."""

import pytest
import trio.testing

BACKENDS = ["asyncio", "trio"]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """On trio every sleep and deadline passes at once, in order; a test that uses threads asks for asyncio alone."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"debug": True}
