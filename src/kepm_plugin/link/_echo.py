"""The echo: a message to ourselves that proves that the link carries messages."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import uuid4

import anyio

from ..errors import LinkLost
from ..message import Publication, Received
from ._session import Session

LATE: Final = 1.1
"""By so many deadlines the end of an echo's deadline must be noticed late to count as a blocked loop, or a sleep."""

MISSED: Final = "the echo did not come back"


class Prover:
    """Sends an echo at once, later when nothing else comes, and tells one that is missed.

    Attributes:
        heard: When something was received last.
    """

    def __init__(
        self,
        topic: str,
        quiet: float,
        timeout: float,
        now: Callable[[], float],
        awake: Callable[[], float],
        proof: Callable[[bool], None],
    ) -> None:
        """Prepare for any number of sessions.

        Args:
            topic: Where the echo is published, and comes back.
            quiet: Seconds without anything received after which an echo is sent.
            timeout: Seconds that one has to come back.
            now: Clock that goes on while the machine sleeps.
            awake: Clock of the loop.
            proof: Told of the first echo that came back, or did not.
        """
        self._topic, self._quiet, self._timeout = topic, quiet, timeout
        self._now, self._awake, self._proof = now, awake, proof
        self.heard = 0.0
        self._nonce = b""
        self._came, self._hurry = anyio.Event(), anyio.Event()
        self._proven: bool | None = None

    def take(self, received: Received) -> None:
        """Take what came on the echo's topic; only our own nonce proves anything."""
        if received.payload == self._nonce:
            self._came.set()

    def hurry(self) -> None:
        """Have the next echo sent at once."""
        self._hurry.set()

    async def missed(self, session: Session) -> str:
        """Return when an echo is missed that should have come."""
        while True:
            sent, awake = self._now(), self._awake()
            came = await self._echo(session)
            # A loop that was blocked, or a machine that slept, has missed nothing: it gets another try at once.
            late = not came and self._now() - sent > LATE * self._timeout
            # Nor has one that did not read, or has just begun again.
            unread = not came and session.reading_since > awake - self._timeout
            if came and self._proven is not True:
                self._proven = True
                self._proof(True)
            elif not (came or late or unread) and self._proven is None:
                self._proven = False
                self._proof(False)
            elif self._proven and not (came or late or unread) and self.heard <= sent:
                return MISSED
            if not late:
                await self._rest()

    async def _rest(self) -> None:
        """Wait until it was quiet for long enough, or there is a reason to hurry."""
        since, self._hurry = self._now(), anyio.Event()
        # A rest too small for the clock would never pass.
        while (rest := self._quiet - (self._now() - max(since, self.heard))) > 0.001:
            with anyio.move_on_after(rest):  # What is received meanwhile puts it off; waking for each would cost more.
                await self._hurry.wait()
                return

    async def _echo(self, session: Session) -> bool:
        """Send one echo and tell whether it came back in time."""
        self._nonce, self._came = uuid4().hex.encode(), anyio.Event()
        with suppress(LinkLost):
            # QoS 0: a broker with 20 messages unacknowledged delivers no further one at QoS 1.
            session.publish(Publication(self._topic, self._nonce, qos=0))
        with anyio.move_on_after(self._timeout):
            await self._came.wait()
        return self._came.is_set()
