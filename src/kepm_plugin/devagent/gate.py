"""The gate: the agent's MQTT listener over TLS, in front of the engine.

It knows the process behind each connection, checks the client id, lets `border` decide about each packet, owns
takeovers, always drains the engine, refuses connections while the engine is down and drops its clients when it dies.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from kepm_plugin.devagent.bodies import (
    BAD_CLIENT_ID,
    BAD_VERSION,
    NOT_AUTHORISED,
    UNAVAILABLE,
    Connect,
    connack,
    refusal_code,
)
from kepm_plugin.devagent.deliveries import Deliveries
from kepm_plugin.devagent.ends import READ, End, first_packets
from kepm_plugin.devagent.engine import Engine
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import CloseBeforeConnack, RefuseConnack
from kepm_plugin.devagent.likeness import Role
from kepm_plugin.devagent.packets import CONNECT, V5
from kepm_plugin.devagent.passage import Passage
from kepm_plugin.devagent.registry import Address, Caller, Registry
from kepm_plugin.devagent.rights import Rights, covers
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.devagent.traffic import Crossing, Traffic

CONNECT_WITHIN: Final = 10.0
REFUSED_STAYS: Final = 100.0
"""Seconds that a refused client may stay connected in the embedded model: MQTTnet's communication time-out."""


@dataclass(slots=True)
class Seat:
    """What the gate keeps of a client id between its connections."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    passage: Passage | None = None
    kept: frozenset[str] = frozenset()
    arrivals: int = 0


class Refusal(Exception):
    """CONNECT is answered with no."""

    def __init__(self, code: tuple[int, int], why: str) -> None:
        super().__init__(why)
        self.code = code


class Gate:
    """All connections. `rights` maps plugin ids to what they declared, and may change while the gate runs."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        rights: Mapping[str, Rights],
        traffic: Traffic,
        terminal: Terminal,
        *,
        faults: Faults,
        embedded: bool = False,
        role: Role,
        mqtt5: bool = True,
        on_publish: Callable[[Crossing], None] = lambda _: None,
    ) -> None:
        self.engine, self.rights, self.traffic, self.terminal = engine, rights, traffic, terminal
        self.faults, self.embedded, self.deliveries = faults, embedded, Deliveries()
        self._registry, self._role, self._mqtt5 = registry, role, mqtt5
        self._on_publish = on_publish
        self._seats: dict[str, Seat] = {}
        self._changed = asyncio.Event()  # set, and replaced, when a subscription may have come

    def connected(self, plugin_id: str) -> bool:
        """Tell whether a client of the plugin is connected right now."""
        return any(seat.passage is not None and seat.passage.plugin_id == plugin_id for seat in self._seats.values())

    def subscribed(self, plugin_id: str) -> frozenset[str]:
        """Return the filters that the engine holds for the plugin, those of kept sessions included."""
        return frozenset(
            name
            for client_id, seat in self._seats.items()
            if self._owner(client_id, plugin_id)
            for name in (seat.passage.subscriptions if seat.passage is not None else seat.kept)
        )

    def anybody(self, topic: str) -> bool:
        """Tell whether a client that is connected now has subscribed to a topic."""
        passages = [seat.passage for seat in self._seats.values() if seat.passage is not None]
        return any(covers(name, topic) for passage in passages for name in passage.subscriptions)

    def suffer(self) -> None:
        """Let faults that were set just now take the connections that exist."""
        for seat in list(self._seats.values()):
            if seat.passage is not None:
                seat.passage.suffer()

    def drop_all(self, why: str) -> None:
        """End all connections."""
        for seat in list(self._seats.values()):
            if seat.passage is not None:
                seat.passage.drop(why)

    async def wait_subscribed(self, plugin_id: str, fits: Callable[[str], bool]) -> None:
        """Return when the engine holds a filter of the plugin that fits."""
        while not any(fits(name) for name in self.subscribed(plugin_id)):
            await self._changed.wait()

    def report(self, crossing: Crossing) -> None:
        """Record what crossed; a denial is said aloud here, because the client does not hear of it."""
        self.traffic.add(crossing)
        if crossing.kind in ("CONNECT", "SUBACK"):
            self._changed.set()
            self._changed = asyncio.Event()
        if not crossing.allowed:
            verb = "subscribe to" if crossing.kind == "SUBSCRIBE" else "publish to"
            where = "subscribe" if crossing.kind == "SUBSCRIBE" else "publish"
            self.terminal.line(
                crossing.plugin_id,
                f"denied: may not {verb} {crossing.topic!r} ({crossing.kind}), which metadata.mqttTopics.{where} "
                "does not cover; the client sees nothing of this",
                "red",
            )
        elif crossing.kind == "PUBLISH" and crossing.direction == "from plugin":
            self._on_publish(crossing)

    def rights_of(self, plugin_id: str) -> Rights:
        """Return what a plugin declared; nothing where its manifest is gone."""
        return self.rights.get(plugin_id, Rights())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from CONNECT to its end."""
        try:
            await self._serve(End(reader, writer))
        except OSError:
            return  # the client is gone before it said anything of use
        finally:
            writer.close()

    async def _serve(self, end: End) -> None:
        caller, connect = Caller(None, "a process"), Connect(level=4, client_id="")
        refused = False
        try:
            with anyio.fail_after(CONNECT_WITHIN):
                packets = await first_packets(end)
            if not packets:
                return
            if packets[0].kind != CONNECT:
                raise ValueError(f"{packets[0].name} before CONNECT")
            connect = Connect.read(packets[0])
            caller = await self._registry.caller(*ends_of(end.writer))
            if self.faults.take(CloseBeforeConnack, caller.plugin_id) is not None:
                return
            plugin_id = self._admit(connect, caller)
            refused = await self._pass(plugin_id, connect, replace(end, early=tuple(packets[1:])))
        except Refusal as refusal:
            self.terminal.error(f"MQTT: {caller.who}, client id {connect.client_id!r}, refused: {refusal}")
            end.writer.write(connack(connect.level, refusal.code))
            refused = True
        except TimeoutError:
            self.terminal.warn("MQTT: a connection sent no CONNECT in time, closed")
        except ValueError as exc:
            self.terminal.error(f"MQTT: {caller.who}, client id {connect.client_id!r}, closed: {exc}")
        if refused and self.embedded:
            with anyio.move_on_after(REFUSED_STAYS):
                while await end.reader.read(READ):
                    continue

    async def _pass(self, plugin_id: str, connect: Connect, end: End) -> bool:
        """Serve an accepted client; tell whether it was refused after all."""
        seat = self._seats.setdefault(connect.client_id, Seat())
        if seat.passage is not None:
            self.terminal.warn(f"MQTT: client id {connect.client_id!r} came again; the older connection is closed")
            seat.passage.take_over()
        seat.arrivals += 1
        number = seat.arrivals
        async with seat.turn:  # the engine has seen the end of the older one when this is ours
            if number != seat.arrivals:
                return False  # and a newer one has come meanwhile
            passage = seat.passage = Passage(self, plugin_id, connect, seat.kept)
            try:
                await passage.run(end)
            finally:
                seat.passage, seat.kept = None, passage.kept
            return passage.refused

    def _admit(self, connect: Connect, caller: Caller) -> str:
        """Return the plugin that a CONNECT belongs to.

        Raises:
            Refusal: It is not let in.
        """
        fault = self.faults.take(RefuseConnack, caller.plugin_id)
        if fault is not None:
            raise Refusal(refusal_code(fault.code), f"a fault answers with code {fault.code}")
        if connect.level not in (4, V5) or (connect.level == V5 and not self._mqtt5):
            raise Refusal(BAD_VERSION, f"protocol level {connect.level}")
        if caller.plugin_id is None:
            raise Refusal(NOT_AUTHORISED, "only processes that the agent launched may connect")
        if not self._owner(connect.client_id, caller.plugin_id):
            wanted = self._role.like.client_id or "{PluginId}, or parts joined by _ of which one is the plugin's id"
            raise Refusal(BAD_CLIENT_ID, f"the client id does not name the plugin; expected {wanted}")
        if not self.engine.up:
            raise Refusal(UNAVAILABLE, f"{self.engine.name} is down")
        return caller.plugin_id

    def _owner(self, client_id: str, plugin_id: str) -> bool:
        """Tell whether a client id names the plugin."""
        return self._role.like.accepts(client_id, plugin_id)


def ends_of(writer: asyncio.StreamWriter) -> tuple[Address, Address]:
    """Return the addresses of both ends of a connection, theirs first.

    Raises:
        ConnectionError: It was closed before anybody could look.
    """
    peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not peer or not here:
        raise ConnectionError("closed already")
    return (str(peer[0]), int(peer[1])), (str(here[0]), int(here[1]))
