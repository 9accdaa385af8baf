"""What faults do to single packets between the model and the client's socket: copies made, PUBACKs lost."""

from dataclasses import replace
from typing import Final

from kepm_plugin.devagent.delivery import Outgoing
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import DropPuback, Duplicate
from kepm_plugin.devagent.packets import PUBACK, Packet, packet_id
from kepm_plugin.devagent.traffic import Direction

_FAR: Final = 0x7FFF


class Tampering:
    """The faults at work on the packets of one connection."""

    def __init__(self, faults: Faults, plugin_id: str, version: int) -> None:
        self._faults, self._plugin_id, self._version = faults, plugin_id, version
        self._seen = 0
        self._own: set[int] = set()  # packet ids that the engine does not know
        self._twice: dict[int, bool] = {}  # packet ids under which two were sent: whether one is acknowledged

    def to_client(self, packet: Outgoing) -> tuple[Outgoing, ...]:
        """Return what is sent in place of a packet."""
        publish = packet.publish
        if packet.kind == PUBACK:
            return () if self._lost("to plugin") else (packet,)
        if publish is None or publish.qos != 1:
            return (packet,)
        self._seen += 1
        fault = self._faults.find(Duplicate, self._plugin_id)
        if fault is None or self._seen % fault.every or publish.mid in self._twice:
            return (packet,)
        self._faults.take(Duplicate, self._plugin_id)
        mid = publish.mid
        if fault.same_id:
            self._twice[mid] = False
        else:
            # Far from those that the engine counts upwards, so that it does not come to use the same one.
            mid = (mid + _FAR) % 0xFFFF + 1
            self._own.add(mid)
        return packet, Outgoing.of(replace(publish, mid=mid, dup=True), self._version)

    def lost(self, packet: Packet) -> bool:
        """Tell whether a packet of the client does not come through at all."""
        return packet.kind == PUBACK and self._lost("from plugin")

    def own(self, packet: Packet) -> bool:
        """Tell whether a packet of the client answers a copy, of which the engine does not know."""
        if packet.kind != PUBACK:
            return False
        mid = packet_id(packet)
        if mid in self._own:
            self._own.discard(mid)
            return True
        if mid not in self._twice:
            return False
        if self._twice[mid]:
            del self._twice[mid]
            return True
        self._twice[mid] = True
        return False

    def _lost(self, direction: Direction) -> bool:
        return self._faults.take(DropPuback, self._plugin_id, lambda fault: fault.direction == direction) is not None
