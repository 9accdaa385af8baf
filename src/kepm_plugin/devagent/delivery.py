"""Between the border and the engine, as a classic broker does it: what the engine does, the client sees. No I/O."""

from dataclasses import dataclass
from typing import Protocol

from kepm_plugin.devagent.bodies import Connect, Publish
from kepm_plugin.devagent.border import Border
from kepm_plugin.devagent.packets import PUBLISH, Packet


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One packet on its way to the client; `publish` is what is in it where it is a QoS 1 or 2 publication."""

    kind: int
    data: bytes
    publish: Publish | None = None

    @classmethod
    def of(cls, publish: Publish, version: int) -> "Outgoing":
        """Return a publication as a packet."""
        return cls(PUBLISH, publish.encode(version), publish if publish.qos else None)


def packet_of(data: bytes) -> Outgoing:
    """Return one encoded packet that is no publication."""
    return Outgoing(data[0] >> 4, data)


class Model(Protocol):
    """How a broker treats one connection.

    Attributes:
        patience: Seconds of silence of the client after which the gate closes; None leaves that to the engine.
    """

    @property
    def patience(self) -> float | None: ...

    def connect(self, connect: Connect) -> Connect:
        """Return CONNECT as the engine may see it."""
        ...

    def from_client(self, packet: Packet) -> tuple[bytes, bytes]:
        """Return what a packet of the client becomes: bytes for the engine, at most one packet back."""
        ...

    def from_engine(self, packet: Packet) -> tuple[bytes, Outgoing | None]:
        """Return what a packet of the engine becomes: bytes back to the engine, and a packet for the client."""
        ...


class Classic:
    """The broker as the engine is: sessions, acknowledgements and redelivery are its own."""

    patience: float | None = None

    def __init__(self, border: Border) -> None:
        self._border = border

    def connect(self, connect: Connect) -> Connect:
        """Return CONNECT without a will that is denied."""
        return self._border.connect(connect)

    def from_client(self, packet: Packet) -> tuple[bytes, bytes]:
        """Ask the border.

        Raises:
            ValueError: The packet breaks the protocol.
        """
        return self._border.from_client(packet)

    def from_engine(self, packet: Packet) -> tuple[bytes, Outgoing | None]:
        """Ask the border; nothing goes back to the engine."""
        data = self._border.from_engine(packet)
        if not data:
            return b"", None
        if packet.kind != PUBLISH:
            return b"", packet_of(data)
        publish = Publish.read(packet, self._border.version)
        return b"", Outgoing(PUBLISH, data, publish if publish.qos else None)
