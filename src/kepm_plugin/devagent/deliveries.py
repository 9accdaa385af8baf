"""What the broker delivered to each plugin: sent, acknowledged by the plugin, dropped.

A chaos harness compares the acknowledged ones with what the plugin handled; payloads are kept as SHA-256.
"""

import hashlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Final

from kepm_plugin.devagent.bodies import Publish
from kepm_plugin.devagent.packets import PUBACK, PUBREC, Packet, packet_id

KEPT: Final = 500_000
"""Acknowledgements that are remembered for each plugin; about 200 bytes each."""

PAGE: Final = 20_000


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One publication whose PUBACK (QoS 1) or PUBREC (QoS 2) of the plugin the gate has read.

    `digest` is the SHA-256 of the payload.
    """

    mid: int
    topic: str
    digest: bytes


class Deliveries:
    """The record of all plugins, by plugin id.

    Attributes:
        sent: QoS 1 and 2 publications that were written to a socket, copies included.
        sent_qos0: QoS 0 publications that were, echoes among them.
        dropped: Publications of any QoS that the embedded model dropped from a full queue.
        total: Acknowledgements since the agent's start, also those that are not remembered any more.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.sent: Counter[str] = Counter()
        self.sent_qos0: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self._kept = kept
        self._acknowledged: dict[str, deque[Acknowledged]] = {}

    def add(self, plugin_id: str, acknowledged: Acknowledged) -> None:
        """Record an acknowledgement of a plugin."""
        if plugin_id not in self._acknowledged:
            self._acknowledged[plugin_id] = deque(maxlen=self._kept)
        self._acknowledged[plugin_id].append(acknowledged)
        self.total[plugin_id] += 1

    def acknowledged(self, plugin_id: str) -> tuple[Acknowledged, ...]:
        """Return what a plugin acknowledged, in the order of its acknowledgements."""
        return tuple(self._acknowledged.get(plugin_id, ()))

    def page(self, plugin_id: str, since: int = 0) -> dict[str, Any]:
        """Return the counters of a plugin, and its acknowledgements from number `since` on, at most 20,000.

        They are lists of packet id, topic and hexadecimal digest under `acknowledged`; `first` is the number of the
        first one, larger than `since` where earlier ones are not remembered any more.
        """
        kept = self._acknowledged.get(plugin_id, ())
        forgotten = self.total[plugin_id] - len(kept)
        first = max(since, forgotten)
        rows = list(kept)[first - forgotten :][:PAGE]
        return {
            "sent": self.sent[plugin_id],
            "sent_qos0": self.sent_qos0[plugin_id],
            "dropped": self.dropped[plugin_id],
            "total": self.total[plugin_id],
            "first": first,
            "acknowledged": [[row.mid, row.topic, row.digest.hex()] for row in rows],
        }


class Outstanding:
    """What was sent on one connection and is not acknowledged yet."""

    def __init__(self, deliveries: Deliveries, plugin_id: str) -> None:
        self._deliveries, self._plugin_id = deliveries, plugin_id
        self._waiting: dict[int, tuple[str, bytes]] = {}

    def sent(self, publish: Publish) -> None:
        """Take note of a publication that was written; the same packet id again replaces the earlier one."""
        self._deliveries.sent[self._plugin_id] += 1
        self._waiting[publish.mid] = publish.topic, hashlib.sha256(publish.payload).digest()

    def answered(self, packet: Packet) -> None:
        """Take note of a packet of the plugin, if it is an acknowledgement of something."""
        if packet.kind not in (PUBACK, PUBREC):
            return
        mid = packet_id(packet)
        if (known := self._waiting.pop(mid, None)) is not None:
            self._deliveries.add(self._plugin_id, Acknowledged(mid, *known))
