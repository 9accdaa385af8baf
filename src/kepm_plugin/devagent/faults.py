"""The faults that the local agent can be given while it runs, as values. No I/O.

Each has an extent: `count` (how often it acts) or `seconds` (how long it lasts), whichever is over first; with neither
it acts once. `plugin` narrows it to what one plugin's process does; None means everybody. Some kinds know one extent
only, and say so. docs/faults.md has a table of them.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Final, Literal

from kepm_plugin.contract import SETTINGS_PATH
from kepm_plugin.devagent.traffic import Direction
from kepm_plugin.errors import UsageError

Extent = Literal["either", "seconds", "moment"]
"""`seconds`: lasts a while and cannot be counted; `moment`: happens when it is set, and is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What all faults have. An impossible value raises `UsageError`."""

    count: int | None = None
    seconds: float | None = None
    plugin: str | None = None

    extent: ClassVar[Extent] = "either"
    of_plugin: ClassVar[bool] = True  # whether it can be told whom it concerns

    def __post_init__(self) -> None:
        """Check the extent, then what the kind itself asks for."""
        if self.extent != "either" and self.count is not None:
            raise UsageError(f"{self.kind} has no count; {_REMEDY[self.extent]}")
        if self.extent == "seconds" and self.seconds is None:
            raise UsageError(f"{self.kind} needs seconds")
        if self.extent == "moment" and self.seconds is not None:
            raise UsageError(f"{self.kind} has no seconds; {_REMEDY[self.extent]}")
        if not self.of_plugin and self.plugin is not None:
            raise UsageError(f"{self.kind} concerns every plugin; leave plugin out")
        self.require(self.count is None or self.count >= 1, "count must be at least 1")
        self.require(self.seconds is None or self.seconds > 0, "seconds must be more than 0")
        self.check()

    def check(self) -> None:
        """Check the fields of the kind."""

    def require(self, fits: bool, rule: str) -> None:
        """Raise where a rule does not hold."""
        if not fits:
            raise UsageError(f"{self.kind}: {rule}")

    @property
    def kind(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def times(self) -> int | None:
        """How often it may act; None where time alone ends it."""
        return 1 if self.count is None and self.seconds is None else self.count

    def values(self) -> dict[str, Any]:
        """Return the fields that were chosen, and the kind."""
        chosen = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        defaults = {entry.name: entry.default for entry in fields(self) if entry.default is not MISSING}
        return {"kind": self.kind} | {key: value for key, value in chosen.items() if value != defaults.get(key)}

    def __str__(self) -> str:
        """Return the fault as one would write it."""
        chosen = ", ".join(f"{key}={value!r}" for key, value in self.values().items() if key != "kind")
        return f"{self.kind}({chosen})"


_REMEDY: Final = {"seconds": "give seconds", "moment": "it happens when it is set"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Fault):
    """A connection ends by RST: those that exist at once, later ones right after CONNACK, which RST may overtake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen(Fault):
    """From now on nothing is read from a connection, and nothing written to it; the engine does not notice.

    It takes connections as `Reset` does. One that it has taken stays so also when the fault is over, until its client
    id comes again or the keep-alive has run out one and a half times.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Mute(Fault):
    """A connection is accepted, and TLS is never answered. It stays mute until the client closes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseBeforeConnack(Fault):
    """A connection is closed after TLS and CONNECT, in place of CONNACK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseConnack(Fault):
    """CONNECT is answered with a code: 1 to 5 of MQTT 3.1.1, or a reason of MQTT 5.

    A client of the other version gets the counterpart where there is one, else the number as it is.
    """

    code: int = 3

    def check(self) -> None:
        """A code is one byte, and 0 would accept."""
        self.require(1 <= self.code <= 0xFF, "code must be from 1 to 255")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseTcp(Fault):
    """Nobody listens on the gate's port. Connections that exist go on."""

    extent: ClassVar[Extent] = "seconds"
    of_plugin: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Fault):
    """Connections carry `bytes_per_second` each way, and everything takes `delay` seconds longer."""

    bytes_per_second: float | None = None
    delay: float = 0.0

    extent: ClassVar[Extent] = "seconds"

    def check(self) -> None:
        """One of the two is needed."""
        self.require(self.bytes_per_second is not None or self.delay > 0, "give bytes_per_second, delay, or both")
        self.require(self.bytes_per_second is None or self.bytes_per_second > 0, "bytes_per_second must be more than 0")
        self.require(self.delay >= 0, "delay must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(Fault):
    """Every n-th QoS 1 PUBLISH of a connection is sent to the plugin twice, with DUP the second time.

    `count` is that of copies. With `same_id` the copy has the packet id of the first, else one of its own. The engine
    sees one acknowledgement.
    """

    every: int = 1
    same_id: bool = False

    def check(self) -> None:
        """Every first one at most."""
        self.require(self.every >= 1, "every must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPuback(Fault):
    """A PUBACK is lost: the broker's `to plugin`, or the plugin's own `from plugin`."""

    direction: Direction = "to plugin"

    def check(self) -> None:
        """There are two directions."""
        self.require(self.direction in ("to plugin", "from plugin"), "direction is 'to plugin' or 'from plugin'")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCertificate(Fault):
    """Gate and API show a new certificate from now on. Connections that exist go on."""

    extent: ClassVar[Extent] = "moment"
    of_plugin: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePort(Fault):
    """The gate moves to another port (None: any free one) and drops its clients; `broker.port` follows."""

    port: int | None = None

    extent: ClassVar[Extent] = "moment"
    of_plugin: ClassVar[bool] = False

    def check(self) -> None:
        """Ports are as in `appsettings.json`."""
        self.require(self.port is None or 1024 <= self.port <= 65535, "port must be from 1024 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFault(Fault):
    """A fault of the API. It concerns the paths that begin with `path` and requests by `method`; empty for all."""

    path: str = SETTINGS_PATH
    method: str = ""

    def check(self) -> None:
        """Methods are those of the API, as HTTP spells them."""
        self.require(self.method in ("", "GET", "PUT", "POST"), "method is 'GET', 'PUT', 'POST', or '' for all")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefused(ApiFault):
    """Requests are answered with `status`: 403 as for a process that is not registered.

    With `applied` each is carried out first, and the answer says nothing of it.
    """

    status: int = 403
    applied: bool = False

    def check(self) -> None:
        """Only refusals."""
        ApiFault.check(self)
        self.require(400 <= self.status <= 599, "status must be from 400 to 599")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSlow(ApiFault):
    """Requests are carried out and answered `delay` seconds later, unless their client has given up by then."""

    delay: float = 1.0

    def check(self) -> None:
        """Some time at least."""
        ApiFault.check(self)
        self.require(self.delay > 0, "delay must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLate(ApiFault):
    """Requests are carried out `delay` seconds later, also where their client has given up, or has ended, by then."""

    delay: float = 1.0

    def check(self) -> None:
        """Some time at least."""
        ApiFault.check(self)
        self.require(self.delay > 0, "delay must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiHangs(ApiFault):
    """Requests are never answered; each hangs until its client gives up. With `applied` each is carried out first."""

    applied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCut(ApiFault):
    """The connection of a request ends in place of the answer. With `applied` the request is carried out first."""

    applied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendEngine(Fault):
    """The engine is stopped (SIGSTOP) and continued: every connection of the broker is half-open meanwhile."""

    extent: ClassVar[Extent] = "seconds"
    of_plugin: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendPlugin(Fault):
    """The plugin's process is stopped (SIGSTOP) and continued."""

    extent: ClassVar[Extent] = "seconds"

    def check(self) -> None:
        """It takes a plugin."""
        self.require(self.plugin is not None, "name the plugin")


KINDS: Final[Mapping[str, type[Fault]]] = {
    kind.__name__: kind
    for kind in (
        *(Reset, HalfOpen, Mute, CloseBeforeConnack, RefuseConnack, RefuseTcp, Slow, Duplicate, DropPuback),
        *(NewCertificate, MovePort, ApiRefused, ApiSlow, ApiLate, ApiHangs, ApiCut, SuspendEngine, SuspendPlugin),
    )
}


def read_fault(values: Mapping[str, Any]) -> Fault:
    """Return the fault that `Fault.values` described.

    Raises:
        UsageError: There is no such kind, or a field is wrong.
    """
    kind = KINDS.get(str(values.get("kind")))
    if kind is None:
        raise UsageError(f"no fault {values.get('kind')!r}; there are: {', '.join(KINDS)}")
    try:
        return kind(**{key: value for key, value in values.items() if key != "kind"})
    except TypeError as exc:
        raise UsageError(f"{kind.__name__}: {exc}") from exc
