"""One local agent for each broker, which changes its role from test to test."""

from collections.abc import AsyncGenerator

import pytest

from tests.contract.probe import agent_for_probes
from tests.devagent.conftest import Stage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Sockets, processes and uvicorn: asyncio."""
    return "asyncio"


@pytest.fixture(scope="module")
async def mosquitto(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncGenerator[Stage]:
    async with agent_for_probes(tmp_path_factory.mktemp("mosquitto"), "mosquitto") as stage:
        yield stage


@pytest.fixture(scope="module")
async def nats(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncGenerator[Stage]:
    async with agent_for_probes(tmp_path_factory.mktemp("nats"), "nats") as stage:
        yield stage
