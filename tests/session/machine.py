"""The machine: whatever happens to plugin, link, broker and disk, in any order, what was promised is kept."""

import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kepm_plugin.message import Received

from .clockwork import EPOCH
from .ledger import Broken, Ledger, Sent
from .network import Broker
from .process import Disk, Process, World
from .scripts import LANES

WAITS = st.sampled_from(["not", "turn", "nap", "hang", "tell"])
ENDS = st.sampled_from(["ok", "ok", "reject", "fail", "flaky", "retry", "misfit"])
LATER = st.sampled_from(["defer", "early"])
QOS = st.sampled_from([1, 1, 1, 0])
COMMANDS = st.sampled_from(["One", "Many"])
THEN = st.sampled_from(["", "run", "run", ".", "..", "....", "wait", "wait long"])
"""What follows at once: nothing, all that can be done now, so many turns of the event loop, or some time."""


class SessionMachine(RuleBasedStateMachine):
    """Rules are what happens; the ledger says what must not come of it."""

    world: World
    process: Process | None = None

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp())
        self.now = 0.0
        self.ended_badly = False

    @initialize(journal=st.booleans(), keeps=st.booleans())
    def begin(self, journal: bool, keeps: bool) -> None:
        self.world = World(self.root / "0", Broker(keeps=keeps), Ledger(journal=journal), journal)
        self.world.broker.watch(self._saw)
        self.start(then="run")

    def _saw(self, publication: Any) -> None:
        if publication.topic.startswith("P/Responses/"):
            answer = json.loads(publication.payload)
            if "ok" in answer and answer["correlationId"] is not None:
                self.world.ledger.answers[answer["correlationId"]] += 1

    # --- messages -----------------------------------------------------------------------------------------------------

    @rule(handler=st.sampled_from(["Plain", "Timed", "Keyed 1", "Keyed 2"]), qos=QOS, waits=WAITS, ends=ENDS, then=THEN)
    def message(self, handler: str, qos: int, waits: str, ends: str, then: str) -> None:
        name, _, key = handler.partition(" ")
        self._send(name, LANES[name].topic.replace("{key}", key), {}, qos, waits=waits, ends=ends)
        self._then(then)

    @rule(identity=st.sampled_from([None, "1", "2"]), qos=QOS, waits=WAITS, ends=ENDS, then=THEN)
    def known(self, identity: str | None, qos: int, waits: str, ends: str, then: str) -> None:
        body = {} if identity is None else {"id": identity}
        self._send("Known", "P/known", body, qos, identity=identity, waits=waits, ends=ends)
        self._then(then)

    @rule(handler=COMMANDS, named=st.booleans(), qos=QOS, waits=WAITS, ends=ENDS | LATER, then=THEN)
    def command(self, handler: str, named: bool, qos: int, waits: str, ends: str, then: str) -> None:
        name = f"c{len(self.world.ledger.sent)}" if named else None
        body = {"correlationId": name} if named else {}
        script = {"identity": name, "correlation": name, "waits": waits, "ends": ends}
        self._send(handler, LANES[handler].topic, body, qos, **script)
        self._then(then)

    @rule(handler=COMMANDS, qos=QOS, waits=WAITS, then=THEN)
    def command_to_answer_later(self, handler: str, qos: int, waits: str, then: str) -> None:
        self.command(handler=handler, named=True, qos=qos, waits=waits, ends="defer", then=then)

    @precondition(lambda self: any(one.correlation for one in self.world.ledger.sent))
    @rule(which=st.integers(0, 3), qos=QOS, other=st.sampled_from([False, False, True]), then=THEN)
    def ask_again(self, which: int, qos: int, other: bool, then: str) -> None:
        """Send a command with the identity of an earlier one, and mostly with its content."""
        named = [one for one in self.world.ledger.sent if one.correlation]
        old = named[-1 - which % len(named)]
        body = {"correlationId": old.correlation} | ({"other": 1} if other else {})
        script = {"identity": old.correlation, "correlation": old.correlation, "waits": old.waits, "ends": old.ends}
        self._send(old.handler, old.topic, body, qos, **script)
        self._then(then)

    def _send(self, handler: str, topic: str, body: object, qos: int, **script: Any) -> None:
        ledger = self.world.ledger
        sent = Sent(len(ledger.sent), handler, topic, json.dumps(body).encode(), qos, **script)
        if sent.ends == "misfit":
            sent.payload, sent.identity, sent.correlation = b"[]", None, None
        ledger.sent.append(sent)
        sent.taken = self.world.broker.offer(
            Received(topic, sent.payload, qos, received_at=EPOCH + self.now, properties={"number": str(sent.number)})
        )

    # --- time ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.process)
    @rule(then=THEN)
    def run(self, then: str) -> None:
        self._then(then)

    def _then(self, then: str) -> None:
        if then == "wait":
            self.wait(1.5)
        elif then == "wait long":
            self.wait(70.0)
        elif then == "run":
            self.wait(0.0)
        elif then:
            for _ in then:
                self._move(lambda process: process.loop.step())

    def wait(self, seconds: float) -> None:
        self._move(lambda process: process.loop.run(seconds))

    def _move(self, do: Any) -> None:
        """Do something that the process may not survive."""
        process = self.process
        if process is None:
            return
        do(process)
        self.now = process.loop.now
        if process.alive and process.task.done():
            process.task.result()
            raise Broken("the plugin ended by itself")
        if not process.alive:
            self._bury()
        self._check()

    def _check(self) -> None:
        try:
            self.world.ledger.check()
        except Broken:
            self.ended_badly = True
            raise

    def _bury(self) -> None:
        assert self.process is not None
        process, self.process = self.process, None
        self.world.folder = process.bury()
        self.world.fuse = 0

    # --- link and broker ----------------------------------------------------------------------------------------------

    @rule(then=THEN)
    def cut(self, then: str) -> None:
        self.world.broker.cut("P")
        self._then(then)

    @rule(up=st.sampled_from([True, True, False]), then=THEN)
    def broker(self, up: bool, then: str) -> None:
        if up:
            self.world.broker.up = True
        else:
            self.world.broker.stop()
        self._then(then)

    @rule(network=st.sampled_from(["well", "well", "slow", "deaf"]))
    def weather(self, network: str) -> None:
        self.world.network = network
        if network == "well" and self.process is not None and self.process.wire is not None:
            self.process.wire.catch_up()

    @precondition(lambda self: self.process)
    @rule()
    def copy(self) -> None:
        if copied := self.world.broker.copy():
            self.world.ledger.copied(int(copied.properties["number"]))

    # --- the plugin ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.process)
    @rule(then=THEN)
    def start(self, then: str) -> None:
        self.world.runs += 1
        self.process = Process(self.world, self.world.folder, self.now)
        self._move(lambda process: process.loop.step())
        self._then(then)

    @precondition(lambda self: self.process)
    @rule(then=THEN)
    def stop(self, then: str) -> None:
        assert self.process is not None
        self.process.stop()
        self.now = self.process.loop.now
        self._bury()
        self._check()
        if then:
            self.start(then=then)

    @precondition(lambda self: self.process)
    @rule(then=THEN)
    def kill(self, then: str) -> None:
        self._move(lambda process: process.kill("at rest"))
        if then:
            self.start(then=then)

    @precondition(lambda self: self.process and not self.world.fuse)
    @rule(boundaries=st.integers(1, 12), then=THEN)
    def kill_soon(self, boundaries: int, then: str) -> None:
        self.world.fuse = boundaries
        self._then(then)

    @precondition(lambda self: self.process)
    @rule(everything=st.booleans(), then=THEN)
    def release(self, everything: bool, then: str) -> None:
        self._move(lambda process: process.release(everything))
        self._then(then)

    @precondition(lambda self: self.process and self.world.tickets)
    @rule(which=st.integers(0, 3))
    def answer(self, which: int) -> None:
        ticket = self.world.tickets[-1 - which % len(self.world.tickets)]
        self._move(lambda process: process.answer(ticket))

    @rule(full=st.sampled_from([False, False, True]))
    def disk(self, full: bool) -> None:
        self.world.disk_full = full

    # --- what must hold -----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and not self.ended_badly:
                self._come_to_rest()
                self._settle()
        finally:
            if self.process is not None:
                self.process.kill("the test is over")
                self.process.bury()
            shutil.rmtree(self.root)

    def _come_to_rest(self) -> None:
        """Let everything be well again, and wait until nothing moves."""
        world = self.world
        world.disk_full, world.patient, world.fuse, world.broker.up = False, False, 0, True
        self.weather("well")
        for again in (True, False):
            if self.process is None:
                self.start(then="")
            self.release(everything=True, then="")
            self.wait(100.0)
            self.cut(then="")
            self.wait(100.0)
            if again:  # What the run could not write down, and holds in memory no more, is the next one's.
                self.stop(then="")
        assert self.process is not None
        for ticket in self.process.disk().tickets:
            self.answer_now(ticket)
        self.wait(100.0)
        self.stop(then="")

    def answer_now(self, ticket: str) -> None:
        self._move(lambda process: process.answer(ticket))

    def _settle(self) -> None:
        """Look what became of each message."""
        world, disk = self.world, Disk.read(self.world.folder)
        kept = world.broker.keeps
        if disk.waiting:
            raise Broken(f"messages {list(disk.waiting)} are in the journal still")
        if disk.tickets:
            raise Broken(f"tickets {list(disk.tickets)} are in the journal still")
        if kept and (left := world.broker.pending()):
            raise Broken(f"messages {[one.properties['number'] for one in left]} are with the broker still")
        for sent in world.ledger.sent:
            if not sent.qos or not sent.taken or not (kept or sent.acknowledged):
                continue
            if not world.ledger.settled(sent, disk.dead):
                raise Broken(f"message {sent.number} was lost")
            if sent.correlation and not world.ledger.answers[sent.correlation]:
                raise Broken(f"command {sent.number} was never answered")
