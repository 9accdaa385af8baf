"""One connection and its loss: the event loop drives paho, and whoever waits for the broker hears that it is gone.

Everything runs on the event loop, but for the hooks that paho calls while aiomqtt connects in a thread; those only
pass on. Knows packets as paho's affair; messages are in `_link`.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import aiomqtt
import anyio
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import ConnectFlags, DisconnectFlags
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..errors import BrokerRefused, LinkLost
from ..eventloop import shared_wait
from ._client import RECEIVE_MAXIMUM, new_client, remedy, words
from ._options import BrokerAddress, Ending, SessionOptions, Version
from ._private import between_packets, forget_ping, note_received, paho_of, queue_packets, take_packets, use_wire
from ._wire import Wire

DRAIN: Final = RECEIVE_MAXIMUM
"""Packets that are read before other work gets its turn."""
DRAIN_BYTES: Final = 2**20
"""Bytes that are taken off the wire before other work gets its turn, and so what one drain delivers at most."""
IN_FLIGHT: Final = 20
"""Publications at QoS >= 1 that may be unacknowledged; a round trip on loopback takes far less than a millisecond."""
_TICK: Final = 5.0  # seconds between looks at the keep-alive; aiomqtt's own one wakes up every second
_PINGREQ: Final = b"\xc0\0"
_TAKEN_OVER: Final = 0x8E
_KEEP_ALIVE_TIMEOUT: Final = 0x8D
_PROTOCOL_ERROR: Final = 0x82


class Connection:
    """A client of aiomqtt whose socket, reading, writing and keep-alive are ours.

    Attributes:
        client: aiomqtt's, for its calls; wait for them inside `confirmation`.
        paho: The client below it, for what aiomqtt has no call for.
        reason: Why the connection is gone, in plain words; None while it is not.
        ending: How it went.
        reading_since: Since when, on the loop's clock, it is read without a pause; infinite while it is not read.
        writing: What paho calls is about writing, not about what the broker sent.
        session_present, in_flight_maximum, maximum_qos, retain: What CONNACK said.
    """

    def __init__(
        self,
        wire: Wire,
        address: BrokerAddress,
        options: SessionOptions,
        version: Version,
        take: Callable[[int, bytes, int, int], bool],
        before_writing: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        """Prepare an attempt.

        Args:
            wire: The socket.
            address: Whom it is connected to.
            options: Of the session.
            version: Of MQTT.
            take: Is offered each packet before paho, as `Wire.hand_over` does.
            before_writing: Is called before what is queued is written, so that more can be.
            after: Is called each time that paho has worked and may have called hooks.
        """
        self.session_present = False
        self.in_flight_maximum = IN_FLIGHT
        self.maximum_qos = 2
        self.retain = True
        self.reading_since = -math.inf
        self.ending: Ending = "broken"
        self.writing = False
        self.reason: str | None = None
        self.gone = anyio.Event()
        self._wire, self._take, self._before_writing, self._after = wire, take, before_writing, after
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._descriptor = -1  # of the socket, while the loop watches it
        self._again: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: ReasonCode | None = None
        self._leaving = False
        self._waiting: dict[anyio.CancelScope, float] = {}  # scopes that the loss ends, and their patience
        self.client = new_client(address, options, version)
        self.paho = paho_of(self.client)
        self.paho.disable_logger()  # it formats a line for every packet
        use_wire(self.paho, wire)
        take_packets(self.paho, take)
        self._aiomqtt_connected: Any = self.paho.on_connect
        self._aiomqtt_disconnected: Any = self.paho.on_disconnect
        self.paho.on_connect = self._on_connect
        self.paho.on_disconnect = self._on_disconnect
        self.paho.on_socket_open = self._on_socket_open
        self.paho.on_socket_close = self._on_socket_close
        self.paho.on_socket_register_write = self._on_socket_register_write
        self.paho.on_socket_unregister_write = self._on_socket_unregister_write

    async def connect(self) -> None:
        """Send CONNECT and wait for CONNACK. The deadline is the caller's.

        Raises:
            BrokerRefused: CONNACK says no.
            LinkLost: The connection ended before CONNACK.
        """
        try:
            with self.confirmation("CONNACK", math.inf):
                await self.client.__aenter__()
        except LinkLost:
            if self._refusal is None:
                raise
            raise BrokerRefused(
                f"the broker refused client id {self.client.identifier!r}: {words(self._refusal)}; it must be that of "
                f"a plugin whose JSON the agent has loaded{remedy(self._refusal)}",
                code=self._refusal.value,
            ) from None

    async def leave(self) -> None:
        """Send what is queued and DISCONNECT, so that the broker drops the will. Bound it: the broker must read."""
        if self.reason is not None:
            return
        self._leaving = True
        self._before_writing()  # DISCONNECT is the last packet
        try:
            await self.client.__aexit__(None, None, None)
        finally:
            self._leaving = False

    def close(self, reason: str) -> None:
        """Close the socket, from wherever things are; without DISCONNECT, unless `leave` has sent it."""
        self._lose(reason)
        self._wire.close()
        self.paho.disconnect()
        self.paho.loop_write()  # paho finds the socket closed, and forgets it

    @contextmanager
    def confirmation(self, packet: str, seconds: float) -> Generator[None]:
        """Wait inside for an answer of the broker; ended by the loss, and a loss itself where it does not come.

        Raises:
            LinkLost: The connection is gone.
        """
        with anyio.move_on_after(math.inf if self.paused else seconds) as scope:
            self._waiting[scope] = seconds
            try:
                yield
            except aiomqtt.MqttError as error:
                self.close(f"the connection could not be used ({error})")
            finally:
                del self._waiting[scope]
        if scope.cancelled_caught and self.reason is None:
            self.close(f"the broker sent no {packet} within {seconds:g} s")
        if self.reason is not None:
            raise LinkLost(self.reason)

    def _lose(self, reason: str) -> None:
        if self.reason is not None:
            return
        self.reason = reason
        self._unwatch()
        self.gone.set()
        for scope in self._waiting:
            scope.cancel()

    # --- reading or not ---------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Nothing is read at the moment."""
        return self.reading_since == math.inf

    def pause_reading(self) -> None:
        """Leave in the socket what the broker sends; whoever waits for an answer has time until it is read again."""
        if self.paused or self.reason is not None:
            return
        self.reading_since = math.inf
        self._loop.remove_reader(self._descriptor)
        if self._again is not None:
            self._again.cancel()
        for scope in self._waiting:
            scope.deadline = math.inf

    def resume_reading(self) -> None:
        """Read again, first of all what has arrived meanwhile."""
        if not self.paused or self.reason is not None:
            return
        self.reading_since = self._loop.time()
        forget_ping(self.paho)  # its answer may be behind much else
        for scope, seconds in self._waiting.items():
            scope.deadline = self.reading_since + seconds
        self._loop.add_reader(self._descriptor, self._read)
        self._again = self._loop.call_soon(self._read)  # what the wire holds already wakes nobody up

    # --- the event loop ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self.reason is None:
            self._descriptor = self._wire.fileno()
            self._loop.add_reader(self._descriptor, self._read)
            self._tick()

    def _unwatch(self) -> None:
        """Take the socket out of the event loop, which must happen before it is closed."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._descriptor = -1
        for handle in (self._again, self._timer):
            if handle is not None:
                handle.cancel()

    def write_soon(self) -> None:
        """Have `before_writing` called, and what it queues written, when the socket takes it."""
        self._start_writing()

    def _start_writing(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_writer(self._descriptor, self._write)

    def _read(self) -> None:
        """Read until the socket would block, or other work should have its turn."""
        self._again = None
        self._wire.start_reading(DRAIN_BYTES)
        with self._calling_paho():
            for _ in range(DRAIN):
                if between_packets(self.paho) and self._wire.hand_over(self._take):
                    note_received(self.paho, time.monotonic())
                if not self._wire.dry:
                    self.paho.loop_read()
                if self._wire.dry or self._wire.spent or self.reason is not None:
                    break
        if not self._wire.dry and not self.paused and self.reason is None:
            self._again = self._loop.call_soon(self._read)  # what TLS has decrypted already wakes nobody up

    def _write(self) -> None:
        self.writing = True
        with self._calling_paho():
            self._before_writing()
            self.paho.loop_write()
        self.writing = False

    def _tick(self) -> None:
        with self._calling_paho():
            if self.paused:  # paho would miss the answers to its pings; ours tell both ends that the other is there
                queue_packets(self.paho, _PINGREQ)
            else:
                self.paho.loop_misc()
        if self.reason is None:
            most = min(_TICK, max(self.paho.keepalive, 1) / 4)
            self._timer = self._loop.call_later(shared_wait(self._loop.time(), most), self._tick)

    @contextmanager
    def _calling_paho(self) -> Generator[None]:
        """An error, inside or afterwards, means that the connection is unusable; the event loop's handler gets it."""
        try:
            with self._or_lost("the MQTT library failed on what the broker sent"):
                yield
        finally:
            # Else the broker would wait for acknowledgements that never come, and nobody would notice.
            with self._or_lost("what the broker sent could not be handed over"):
                self._after()

    @contextmanager
    def _or_lost(self, reason: str) -> Generator[None]:
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self.close(reason)

    # --- paho's hooks -----------------------------------------------------------------------------------------------

    def _on_socket_open(self, *_: object) -> None:
        """Called in aiomqtt's thread, where the attempt may have been given up meanwhile."""
        if self.reason is not None:
            raise ConnectionAbortedError(self.reason)
        self._loop.call_soon_threadsafe(self._watch)

    def _on_socket_close(self, *_: object) -> None:
        self._unwatch()

    def _on_socket_register_write(self, *_: object) -> None:
        if threading.get_ident() == self._thread:
            self._start_writing()
        else:  # CONNECT: the loop alone writes it, and not where the attempt was given up
            self._loop.call_soon_threadsafe(self._start_writing)

    def _on_socket_unregister_write(self, *_: object) -> None:
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)

    def _on_connect(
        self, client: Paho, userdata: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._refusal = code
            return
        self.session_present = flags.session_present
        self.in_flight_maximum = min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT))
        self.maximum_qos = getattr(properties, "MaximumQoS", 2)
        self.retain = bool(getattr(properties, "RetainAvailable", True))
        self._aiomqtt_connected(client, userdata, flags, code, properties)

    def _on_disconnect(
        self, client: Paho, userdata: Any, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            taken_over = ""
            if code.value == _TAKEN_OVER:
                taken_over, self.ending = "as another client connected with this client id, ", "taken over"
            reason = f"the broker ended the connection: {taken_over}{words(code)}"
        elif code.value == _KEEP_ALIVE_TIMEOUT:
            reason = f"the broker answered no ping for {client.keepalive} s"
        elif code.value == _PROTOCOL_ERROR and self._refusal is None:
            reason = "the broker sent what is not MQTT"
        else:
            reason = self._wire.trouble or "the connection ended"
            if self.reason is None:
                self.ending = self._wire.ending
        self._lose(reason)
        if self._leaving:  # else aiomqtt would keep an exception that nobody looks at
            self._aiomqtt_disconnected(client, userdata, flags, code, properties)
