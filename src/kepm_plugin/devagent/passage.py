"""One client's way through the gate: pumps between its socket and a connection of its own to the engine."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final

import anyio

from kepm_plugin.devagent.bodies import TAKEN_OVER, UNAVAILABLE, Connect, connack, disconnect, read_connack
from kepm_plugin.devagent.border import Border
from kepm_plugin.devagent.deliveries import Outstanding
from kepm_plugin.devagent.delivery import Classic, Model, Outgoing, packet_of
from kepm_plugin.devagent.embedded import SESSION_EXPIRY, Embedded
from kepm_plugin.devagent.ends import READ, End, first_packets, leave, reset
from kepm_plugin.devagent.faults import HalfOpen, Reset, Slow
from kepm_plugin.devagent.host import Host
from kepm_plugin.devagent.outlet import STEPS, Outlet, Queue
from kepm_plugin.devagent.packets import PUBLISH, V5, Packet, read_properties
from kepm_plugin.devagent.tampering import Tampering
from kepm_plugin.devagent.traffic import Crossing

UNSENT: Final = 16 * 1024 * 1024
"""Bytes that may wait for a client which reads slowly; at more it is disconnected, since the engine must be drained."""

AT_ONCE: Final = 100
"""Packets of the engine that are carried before the client's socket has a turn: far fewer than its queue holds."""

ANSWER_WITHIN: Final = 5.0
LEAVE_WITHIN: Final = 2.0
PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.0)


class Passage:
    """A connection that was let in.

    Attributes:
        plugin_id: Whose it is.
        refused: The client was told no, by the engine or because there is none.
    """

    def __init__(self, host: Host, plugin_id: str, connect: Connect, known: frozenset[str]) -> None:
        """Prepare; `known` are the filters that the engine may still hold from an earlier connection."""
        self.plugin_id = plugin_id
        self._host, self._connect, self._known = host, connect, known
        self.refused = False
        self._border = Border(plugin_id, connect.level, lambda: host.rights_of(plugin_id), host.report)
        self._model: Model = Embedded(self._border, connect, host.anybody) if host.embedded else Classic(self._border)
        self._tampering = Tampering(host.faults, plugin_id, connect.level)
        self._outstanding = Outstanding(host.deliveries, plugin_id)
        self._client: asyncio.StreamWriter | None = None
        self._outlet: Outlet | None = None
        self._told_to_end = asyncio.Event()
        self._farewell = b""
        self._why = ""

    @property
    def subscriptions(self) -> frozenset[str]:
        """Filters that the engine holds for this client now."""
        return frozenset(self._border.subscriptions)

    @property
    def kept(self) -> frozenset[str]:
        """Filters that the engine keeps after the end of this connection, by what CONNECT asked for."""
        if self._host.embedded:
            return frozenset()
        expiry = dict(read_properties(self._connect.properties)).get(SESSION_EXPIRY, 0)
        keeps = bool(expiry) if self._connect.level >= V5 else not self._connect.clean
        return self.subscriptions if keeps else frozenset()

    def take_over(self) -> None:
        """End this connection because another one came with its client id."""
        if self._connect.level >= V5:
            self._farewell = disconnect(TAKEN_OVER)
        self._why = "taken over"
        self._told_to_end.set()

    def suffer(self) -> None:
        """Let a fault take this connection, where one does that and CONNACK was sent."""
        if self._client is None or self._outlet is None or self._outlet.frozen:
            return
        if self._host.faults.take(Reset, self.plugin_id) is not None:
            reset(self._client)
            self._why = "reset by a fault"
            self._told_to_end.set()
        elif self._host.faults.take(HalfOpen, self.plugin_id) is not None:
            self._outlet.frozen = True
            self._note("DISCONNECT", "half-open by a fault")

    def drop(self, why: str) -> None:
        """End this connection without a farewell."""
        self._why = why
        self._told_to_end.set()

    async def run(self, client: End) -> None:
        """Pump until one side ends.

        Raises:
            ValueError: The client broke the protocol.
        """
        forwarded = self._model.connect(self._connect).with_credential(self._host.engine.credential)
        engine = await self._enter(forwarded.encode())
        if engine is None:
            self._host.terminal.warn(f"MQTT: {self.plugin_id} refused: {self._host.engine.name} did not answer CONNECT")
            client.writer.write(connack(self._connect.level, UNAVAILABLE))
            self.refused = True
            return
        try:
            self._note_connack(engine.early[0])
            await self._pump(client, engine)
        finally:
            with anyio.move_on_after(LEAVE_WITHIN, shield=True):
                await leave(engine)
            engine.writer.transport.abort()
            if self._outlet is not None and self._outlet.frozen:
                client.writer.transport.abort()
            elif self._farewell:
                client.writer.write(self._farewell)
            self._note("DISCONNECT", self._why or ("left" if self._border.left else "connection lost"))

    async def _enter(self, connect: bytes) -> End | None:
        """Connect to the engine and return that end with its CONNACK; None where there is no answer."""
        for pause in PAUSES:
            with suppress(OSError):
                reader, writer = await self._host.engine.connect()
                end = End(reader, writer)
                writer.write(connect)
                with suppress(OSError, ValueError), anyio.move_on_after(ANSWER_WITHIN):
                    if early := await first_packets(end):
                        return End(reader, writer, end.splitter, tuple(early))
                writer.transport.abort()
            if not self._host.engine.up:
                break
            await anyio.sleep(pause)  # NATS closes a client that it takes for a flapping one
        return None

    def _note_connack(self, packet: Packet) -> None:
        present, code = read_connack(packet)
        version = "5" if self._connect.level >= V5 else "3.1.1"
        if code:
            self._why = f"{self._host.engine.name} refused MQTT {version} with code 0x{code:02x}"
            self.refused = True
            return
        if present:
            self._border.subscriptions |= self._known
        self._note("CONNECT", f"MQTT {version}, {'session kept' if present else 'new session'}")

    def _note(self, kind: str, note: str) -> None:
        self._host.terminal.line(self.plugin_id, f"{kind}: {note}", "dim")
        crossing = Crossing(
            plugin_id=self.plugin_id, direction="from plugin", kind=kind, topic=self._connect.client_id, note=note
        )
        self._host.report(crossing)

    async def _pump(self, client: End, engine: End) -> None:
        outlet = self._outlet_to(client.writer)
        broken: list[ValueError] = []
        async with anyio.create_task_group() as pumps:

            async def until_end(pump: Awaitable[object]) -> None:
                try:
                    await pump
                except OSError:
                    pass  # that end is gone
                except ValueError as exc:
                    broken.append(exc)
                pumps.cancel_scope.cancel()

            pumps.start_soon(until_end, self._inward(client, engine, outlet), name="gate.from_client")
            pumps.start_soon(until_end, self._outward(client, engine, outlet), name="gate.from_engine")
            pumps.start_soon(until_end, outlet.run(), name="gate.to_client")
            pumps.start_soon(until_end, self._told_to_end.wait(), name="gate.told_to_end")
        outlet.finish()
        if broken:
            self._why = "protocol error"
            raise broken[0]

    def _outlet_to(self, writer: asyncio.StreamWriter) -> Outlet:
        def sent(packet: Outgoing) -> None:
            if packet.publish is not None:
                self._outstanding.sent(packet.publish)
            elif packet.kind == PUBLISH:
                self._host.deliveries.sent_qos0[self.plugin_id] += 1

        def dropped() -> None:
            self._host.deliveries.dropped[self.plugin_id] += 1

        return Queue(writer, self._slow, sent, dropped) if self._host.embedded else Outlet(writer, self._slow, sent)

    def _slow(self) -> Slow | None:
        return self._host.faults.find(Slow, self.plugin_id)

    async def _inward(self, client: End, engine: End, outlet: Outlet) -> None:
        """Carry what the client sends; wait where the engine does not take it."""
        packets = list(client.early)
        while True:
            to_engine = bytearray()
            for packet in packets:
                if self._tampering.lost(packet):
                    continue
                self._outstanding.answered(packet)
                if self._tampering.own(packet):
                    continue
                forward, back = self._model.from_client(packet)
                to_engine += forward
                if back:
                    self._put(outlet, packet_of(back))
            outlet.flush()
            if to_engine and not engine.writer.is_closing():
                engine.writer.write(to_engine)
                await engine.writer.drain()
            try:
                with anyio.fail_after(self._model.patience):
                    data = await self._read(client.reader, outlet)
            except TimeoutError:
                self._why = "silent for one and a half times its keep-alive"
                return
            if not data:
                return
            packets = client.splitter.feed(data)

    async def _read(self, reader: asyncio.StreamReader, outlet: Outlet) -> bytes:
        """Read from the client, as slowly as a fault says; never again where the connection is half-open."""
        slow = self._slow()
        rate = slow.bytes_per_second if slow is not None else None
        data = await reader.read(READ if rate is None else max(1, int(rate / STEPS)))
        if outlet.frozen:
            await anyio.sleep_forever()
        if slow is not None:
            await anyio.sleep(slow.delay + (len(data) / rate if rate is not None else 0.0))
        return data

    async def _outward(self, client: End, engine: End, outlet: Outlet) -> None:
        """Carry what the engine sends, always: a client that does not read is disconnected, the engine never waits."""
        packets = list(engine.early)
        while True:
            for start in range(0, len(packets), AT_ONCE):
                if client.writer.is_closing():
                    return
                self._carry(packets[start : start + AT_ONCE], client, engine, outlet)
                if outlet.waiting > UNSENT:
                    self._why = f"it reads too slowly, {UNSENT} bytes wait for it"
                    return
                await asyncio.sleep(0)
            data = await engine.reader.read(READ)
            if not data:
                if not self._border.left:
                    self._why = self._why or f"{self._host.engine.name} closed the connection"
                return
            packets = engine.splitter.feed(data)

    def _carry(self, packets: Sequence[Packet], client: End, engine: End, outlet: Outlet) -> None:
        to_engine = bytearray()
        for packet in packets:
            answer, outgoing = self._model.from_engine(packet)
            to_engine += answer
            if outgoing is not None:
                self._put(outlet, outgoing)
        if to_engine and not engine.writer.is_closing():
            engine.writer.write(to_engine)
        outlet.flush()
        if self._outlet is None:  # CONNACK was among them
            self._client, self._outlet = client.writer, outlet
            self.suffer()

    def _put(self, outlet: Outlet, packet: Outgoing) -> None:
        for each in self._tampering.to_client(packet):
            outlet.put(each)
