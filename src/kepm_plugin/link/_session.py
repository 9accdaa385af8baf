"""What the link works with: a session, how to get one, and who is told."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from ..message import Publication, Received
from ..plugin import Gap

Deliver = Callable[[Sequence[Received]], None]

Ending = Literal["taken over", "closed", "reset", "broken"]
"""`taken over`: the broker says that another client uses the client id. `closed`: by the broker, without a word.
`reset`: by the broker too, maybe, with something unread. `broken`: in any other way."""


class Session(Protocol):
    """One connection to the broker, from CONNACK to its loss."""

    @property
    def session_present(self) -> bool:
        """Whether the broker had kept the session (CONNACK)."""
        ...

    @property
    def version(self) -> str:
        """MQTT version, "5" or "3.1.1"."""
        ...

    @property
    def in_flight_maximum(self) -> int:
        """How many publications may be unacknowledged."""
        ...

    @property
    def reading_since(self) -> float:
        """Since when, on the loop's clock, it is read without a pause; infinite while reading is paused."""
        ...

    def pause_reading(self) -> None:
        """Leave with the broker what it sends, from after the current batch on; harmless in a pause, or after the loss.

        Publishing and acknowledging go on, but confirmations are not read either: a handler that waits for one, or
        for an answer, waits for the end of the pause. A new session is read.
        """
        ...

    def resume_reading(self) -> None:
        """Read again; harmless without a pause, or after the loss."""
        ...

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Return when the broker has granted every filter, of one or more. Raises BrokerRefused, LinkLost."""
        ...

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Return when the broker has confirmed. Raises LinkLost."""
        ...

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Queue acknowledgements; harmless after the loss."""
        ...

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Send without blocking; call back when the broker has it. Raises LinkLost."""
        ...

    async def lost(self) -> str:
        """Return, with the reason, when the connection is gone."""
        ...

    @property
    def ending(self) -> Ending:
        """How the connection ended, once it has."""
        ...

    @property
    def certificate(self) -> str:
        """Fingerprint of what the broker has shown; empty where it has shown none."""
        ...


Connector = Callable[[Deliver], AbstractAsyncContextManager[Session]]


class Observer(Protocol):
    """What the link reports to."""

    def received(self, batch: Sequence[Received], session: Session) -> None:
        """Everything that was read in one drain."""
        ...

    async def up(self, session: Session, gap: Gap | None) -> None:
        """The subscriptions are confirmed; `gap` is None at the first time."""
        ...

    async def down(self, reason: str) -> None:
        """The session is gone, or an attempt failed."""
        ...

    def proof(self, proven: bool) -> None:
        """The first echo came back, or did not."""
        ...

    def taken_over(self, reason: str | None) -> None:
        """Another client uses our client id; None: not any more, it seems."""
        ...

    def beat(self, up: bool) -> None:
        """Some seconds have passed: with a session, or in a long wait for one."""
        ...
