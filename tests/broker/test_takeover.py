"""Two clients with one id, on each broker: ours recognises it, and leaves the other its turn."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from random import Random
from typing import Any

import anyio
import pytest

from kepm_plugin.errors import AgentUnreachable
from kepm_plugin.link import Deliver, Link, LinkOptions, Session
from kepm_plugin.message import Received
from kepm_plugin.plugin import Gap


class Observed:
    """What the link reports."""

    def __init__(self) -> None:
        self.ups = 0
        self.reason = ""
        self.recognised, self.again = anyio.Event(), anyio.Event()

    def received(self, batch: Sequence[Received], session: Session) -> None: ...

    async def up(self, session: Session, gap: Gap | None) -> None:
        self.ups += 1
        if self.recognised.is_set():
            self.again.set()

    async def down(self, reason: str) -> None: ...

    def proof(self, proven: bool) -> None: ...

    def taken_over(self, reason: str | None) -> None:
        self.reason = reason or ""
        self.recognised.set()

    def beat(self, up: bool) -> None: ...


class Impatient(Random):
    """Never waits for seconds."""

    def uniform(self, a: float, b: float) -> float:
        return min(super().uniform(a, b), 0.2)


@pytest.mark.parametrize("shared_broker", ["mosquitto-5", "mosquitto-3.1.1", "memory"], indirect=True)
async def test_a_client_that_fights_for_our_id_is_recognised_and_ours_comes_back_later(broker: Any) -> None:
    observed = Observed()

    def connect(deliver: Deliver) -> AbstractAsyncContextManager[Session]:
        session: AbstractAsyncContextManager[Session] = broker.open("Plugin", deliver)
        return session

    async def fight() -> None:
        """Connect again after a moment, each time."""
        while not observed.recognised.is_set():
            with suppress(AgentUnreachable):  # taken over before CONNACK
                async with broker.open("Plugin") as session:
                    await session.lost()
            await anyio.sleep(0.05)

    link = Link(connect, observed, LinkOptions(filters=lambda: [broker.topic("a")]), random=Impatient())
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run, name="link")
            async with anyio.create_task_group() as rivals:
                rivals.start_soon(fight, name="rival")
                await observed.recognised.wait()
                rivals.cancel_scope.cancel()
            assert "client id" in observed.reason
            assert observed.ups <= 10
            await observed.again.wait()
            tasks.cancel_scope.cancel()
