"""The session that the framework uses: subscriptions, messages and their acknowledgement, publications.

`deliver` and the callbacks of publications are called after paho has returned, never inside it, so that what they
publish or raise cannot confuse it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..errors import BrokerRefused, LinkLost
from ..message import Publication, Received
from ._client import words
from ._connection import DRAIN, Connection
from ._options import BrokerAddress, Ending, SessionOptions, Version
from ._outgoing import Outgoing
from ._private import held, leave_acknowledging, next_mid, topic_bytes
from ._publish import DUP, converted, plain
from ._wire import Wire

Deliver = Callable[[Sequence[Received]], None]

_log = logging.getLogger("kepm_plugin.broker")

_FAILURE: Final = 0x80  # reason codes from here on say no (MQTT 5.0, section 2.4)
_DENIED_TOPICS: Final = 100  # of which a refused publication is said, once each
_PUBLISH: Final = 0x30  # the upper half of a packet's first byte (MQTT 5.0, section 2.1.2)
_PUBACK, _PUBREC = b"\x40\x02", b"\x50\x02"  # fixed headers; the packet id follows, on MQTT 5 too


class Link:
    """A session with a broker, alive until `lost()` returns.

    Attributes:
        version: The MQTT version in use, "5" or "3.1.1".
        certificate: SHA-256 of the certificate that the broker has shown.
        undecodable: Messages that were acknowledged and dropped because their topic is not UTF-8.
    """

    def __init__(
        self, wire: Wire, address: BrokerAddress, options: SessionOptions, version: Version, deliver: Deliver
    ) -> None:
        self.version: Version = version
        self._has_properties = version == "5"
        self.certificate = wire.certificate
        self.undecodable = 0
        self._wire, self._deliver, self._ack_timeout = wire, deliver, options.ack_timeout
        self._batch: list[Received | MQTTMessage | int] = []  # read, not delivered; a number is the id of a QoS 2 one
        self._begun = 0.0  # when the first of these was read
        self._unacknowledged: dict[int, int] = {}  # packet id -> QoS, of what was read
        self._released: set[int] = set()  # QoS 2: PUBREC is sent, PUBREL not yet seen
        self._published: dict[int, tuple[str, Callable[[], None] | None]] = {}  # packet id -> topic, callback
        self._unwritten: dict[int, Callable[[], None]] = {}  # the same at QoS 0, where paho counts ids too
        self._finished: list[Callable[[], None]] = []
        self._denied: set[str] = set()
        self._connection = Connection(wire, address, options, version, self._on_packet, self._gather, self._hand_over)
        self._paho = self._connection.paho
        self._outgoing = Outgoing(self._paho, properties=self._has_properties, write=self._connection.write_soon)
        self._paho.on_message = self._on_message
        self._paho.on_publish = self._on_publish
        leave_acknowledging(self._paho, self._on_publish_2)
        self.connect = self._connection.connect
        self.leave = self._connection.leave
        self.close = self._connection.close

    @property
    def session_present(self) -> bool:
        """The broker remembered this client (CONNACK)."""
        return self._connection.session_present

    @property
    def in_flight_maximum(self) -> int:
        """How many publications at QoS >= 1 may be unacknowledged at a time."""
        return self._connection.in_flight_maximum

    @property
    def ending(self) -> Ending:
        """How the connection went, once it has."""
        return self._connection.ending

    @property
    def reading_since(self) -> float:
        """Since when, on the loop's clock, what the broker sends is read without a pause; infinite in a pause."""
        return self._connection.reading_since

    def pause_reading(self) -> None:
        """Read nothing more, so that the broker has to keep it; nothing while that is so, nor after the loss.

        Publishing and acknowledging go on and the connection is kept up, but no confirmation is seen either. Called
        inside `deliver`, it ends with that batch.
        """
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Read again; nothing without a pause, nor after the loss."""
        self._connection.resume_reading()

    async def subscribe(self, filters: Sequence[str], qos: int) -> None:
        """Subscribe, and return when the broker has granted every filter.

        Raises:
            BrokerRefused: SUBACK says no to at least one filter.
            LinkLost: The connection is gone, or SUBACK did not come in time (the connection is then given up).
            ValueError: There is no filter, which MQTT forbids (MQTT 5.0, section 3.8.3).
        """
        if not filters:
            raise ValueError("SUBSCRIBE needs at least one filter; send none at all")
        codes: Sequence[ReasonCode] = ()
        with self._connection.confirmation("SUBACK", self._ack_timeout):
            answer = await self._connection.client.subscribe([(each, qos) for each in filters])
            codes = cast("Sequence[ReasonCode]", answer)  # the annotation allows for an older paho
        refused = [(each, code) for each, code in zip(filters, codes, strict=False) if code.value >= _FAILURE]
        if refused or len(codes) != len(filters):
            names = ", ".join(f"{each!r} ({words(code)})" for each, code in refused)
            raise BrokerRefused(
                f"the broker refused to subscribe to {names or 'a part of ' + ', '.join(filters)}; compare the "
                "deployed manifest with the code's",
                code=refused[0][1].value if refused else _FAILURE,
            )
        for each, code in zip(filters, codes, strict=True):
            if code.value < qos:
                _log.warning("the broker grants %r at QoS %d only, asked for %d", each, code.value, qos)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe, and return when the broker has confirmed.

        Raises:
            LinkLost: The connection is gone, or UNSUBACK did not come in time (the connection is then given up).
        """
        with self._connection.confirmation("UNSUBACK", self._ack_timeout):
            await self._connection.client.unsubscribe(list(filters))

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Tell the broker that messages are safe: PUBACK, or PUBREC at QoS 2, all in one buffer.

        Ids that are not waiting for it are ignored: those of an earlier connection, or acknowledged before.
        """
        if self._connection.reason is not None:
            return
        packets = bytearray()
        for mid in mids:
            qos = self._unacknowledged.pop(mid, 0)
            if qos == 1:
                packets += _PUBACK + mid.to_bytes(2, "big")
            elif qos == 2:
                self._released.add(mid)
                packets += _PUBREC + mid.to_bytes(2, "big")
        if packets:
            self._outgoing.add(bytes(packets))

    def publish(self, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        """Queue a publication; the caller keeps those that are unacknowledged below `in_flight_maximum`.

        Retain flag and QoS are reduced to what CONNACK allows; correlation data needs MQTT 5.

        Args:
            publication: What to send.
            acknowledged: Called on PUBACK or PUBCOMP, whatever they say; at QoS 0 when it is written.

        Raises:
            LinkLost: The connection is gone; it is given up where the broker left a publication unacknowledged while
                65,534 others went, so that no packet id is free.
            ValueError: MQTT has no packet for it.
        """
        connection = self._connection
        if connection.reason is not None:
            raise LinkLost(f"cannot publish on {publication.topic!r}: {connection.reason}")
        qos, retain = min(publication.qos, connection.maximum_qos), publication.retain and connection.retain
        if qos == 1:
            mid = next_mid(self._paho)
            if is_free := mid not in self._published:
                self._outgoing.put(publication, mid=mid, retain=retain)
        else:
            mid, is_free = self._send_by_paho(publication, qos, retain)
        if not is_free:
            connection.close("the broker left a publication unacknowledged until its packet id was needed again")
            raise LinkLost(f"cannot publish on {publication.topic!r}: {connection.reason}")
        if qos:
            self._published[mid] = publication.topic, acknowledged
        elif acknowledged is not None:
            self._unwritten[mid] = acknowledged

    def _send_by_paho(self, publication: Publication, qos: int, retain: bool) -> tuple[int, bool]:
        """Return the packet id, and whether no other publication that is unacknowledged has it."""
        self._outgoing.gather()
        properties = None
        if publication.correlation_data is not None and self.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = publication.correlation_data
        sent = self._paho.publish(publication.topic, publication.payload, qos, retain, properties)
        return sent.mid, sent.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE and (not qos or sent.mid not in self._published)

    async def lost(self) -> str:
        """Return when the connection is gone, with the reason in plain words."""
        await self._connection.gone.wait()
        return self._connection.reason or ""

    # --- paho's hooks -----------------------------------------------------------------------------------------------

    def _on_packet(self, header: int, data: bytes, begin: int, end: int) -> bool:
        """Take what comes most, a PUBLISH or PUBACK that is plain; all else comes through paho."""
        if header & 0xF0 != _PUBLISH:
            return header == _PUBACK[0] and self._on_plain_puback(data, begin, end)
        if not self._batch:
            self._begun = time.time()
        received = plain(header, data, begin, end, self._begun, properties=self._has_properties)
        if received is None:
            return False
        if not (received.qos and header & DUP and received.mid in self._unacknowledged):  # as in `_on_message`
            self._take(received)
            if received.qos:
                self._unacknowledged[received.mid] = 1
        return True

    def _on_message(self, client: Paho, userdata: Any, message: MQTTMessage) -> None:
        if message.qos == 2:  # PUBREL; the message was taken at PUBLISH
            self._released.discard(message.mid)
        elif message.qos and message.dup and message.mid in self._unacknowledged:
            pass  # NATS repeats on the same connection what is still being worked on
        else:
            self._take(message)
            if message.qos:
                self._unacknowledged[message.mid] = 1

    def _on_publish_2(self, mid: int) -> None:
        """Called where paho would send PUBREC, just before it puts a QoS 2 message aside until PUBREL."""
        if mid in self._released:  # the broker did not see our PUBREC
            self._unacknowledged[mid] = 2
            self.acknowledge([mid])
        elif mid not in self._unacknowledged:
            self._unacknowledged[mid] = 2
            self._take(mid)

    def _take(self, message: Received | MQTTMessage | int) -> None:
        self._batch.append(message)
        if len(self._batch) >= DRAIN:  # paho reads as many packets at a time as it has publications in flight
            self._wire.end_reading()

    def _on_publish(
        self, client: Paho, userdata: Any, mid: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        if not self._connection.writing:
            self._on_puback(mid, code.value)
        elif (acknowledged := self._unwritten.pop(mid, None)) is not None:
            self._finished.append(acknowledged)

    def _on_plain_puback(self, data: bytes, begin: int, end: int) -> bool:
        length = end - begin
        if length != 2 and not (self._has_properties and length > 2):
            return False
        self._on_puback(data[begin] << 8 | data[begin + 1], data[begin + 2] if length > 2 else 0)
        return True

    def _on_puback(self, mid: int, code: int) -> None:
        """Take PUBACK, or PUBCOMP with what PUBREC or it has said."""
        topic, acknowledged = self._published.pop(mid, ("", None))
        if acknowledged is not None:
            self._finished.append(acknowledged)
        if code >= _FAILURE and topic not in self._denied and len(self._denied) < _DENIED_TOPICS:
            self._denied.add(topic)  # once each: the record of it may itself be published, and denied
            reason = words(ReasonCode(PacketTypes.PUBACK, identifier=code))
            _log.warning("the broker refused a publication on %r: %s", topic, reason)

    def _gather(self) -> None:
        self._outgoing.gather()

    # --- to the framework -------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        finished, self._finished = self._finished, []
        for acknowledged in finished:
            acknowledged()
        if self._batch:
            batch, self._batch = self._batch, []
            now = time.time()
            messages = (held(self._paho, each) if isinstance(each, int) else each for each in batch)
            decoded = [
                each if isinstance(each, Received) else self._received(each, now)
                for each in messages
                if each is not None
            ]
            if decoded := [each for each in decoded if each is not None]:
                self._deliver(decoded)

    def _received(self, message: MQTTMessage, now: float) -> Received | None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self.undecodable += 1
            _log.warning(
                "a message was dropped as its topic is not UTF-8: %s (%d so far)",
                topic_bytes(message)[:40].hex(" "),
                self.undecodable,
            )
            self.acknowledge([message.mid])  # else it would come back for ever
            return None
        return converted(message, topic, now)
