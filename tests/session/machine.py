"""The machine: whatever happens to plugin, link, broker and disk, in any order, what was promised is kept."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kepm_plugin.message import Publication, Received
from kepm_plugin.outbox import MAX_AGE

from .clockwork import EPOCH
from .ledger import Broken, Ledger, Sent
from .network import CLIENT, Broker
from .process import Process
from .scripts import LANES
from .world import Disk, World


@dataclass(frozen=True)
class Draft:
    """A message to be sent: to which handler, by which name it is known again, and what comes of it."""

    to: str = "Plain"
    name: str = "new"
    qos: int = 1
    waits: str = "not"
    ends: str = "ok"


DRAFTS = st.builds(
    Draft,
    to=st.sampled_from(["Plain", "Timed", "Keyed 1", "Keyed 2", "Known", "One", "Many", "One", "Many"]),
    # The same: as the last one has. Other: that of the last one, with another content.
    name=st.sampled_from(["new", "none", "new", "same", "other"]),
    qos=st.sampled_from([1, 1, 1, 0]),
    waits=st.sampled_from(["not", "not", "not", "turn", "nap", "hang", "tell"]),
    ends=st.sampled_from(
        ["ok", "ok", "reject", "fail", "flaky", "retry", "misfit", "defer", "early", "retry", "early"]
    ),
)
SENDS = st.lists(DRAFTS, max_size=3)
THEN = st.sampled_from(["run", "run", "run", "nothing", "two turns", "four turns", "wait", "wait long"])
"""What follows at once: all that can be done now, nothing, so many turns of the event loop, or some time."""

Act = Callable[[Process], object]


class SessionMachine(RuleBasedStateMachine):
    """Rules are what happens, each time after some messages were sent; the ledger says what must not come of it."""

    journal: ClassVar[bool]
    keeps: ClassVar[bool]
    """Whether the broker keeps sessions."""

    world: World
    process: Process | None = None

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(mkdtemp())
        self.now = 0.0
        self.is_broken = False

    @initialize()
    def begin(self) -> None:
        broker, ledger = Broker(keeps=self.keeps), Ledger(journal=self.journal)
        self.world = World(self.root / "0", broker, ledger, self.journal)
        self.world.broker.watch(self._saw)
        self._go_on("run")

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(sends=SENDS, then=THEN)
    def go_on(self, sends: Sequence[Draft], then: str) -> None:
        self._send(sends)
        self._go_on(then)

    @rule(sends=SENDS, then=THEN)
    def cut(self, sends: Sequence[Draft], then: str) -> None:
        self._send(sends)
        self.world.broker.cut(CLIENT)
        self._go_on(then)

    @rule(sends=SENDS, what=st.sampled_from(["slow", "mute", "mute", "deaf", "broker", "disk"]), then=THEN)
    def trouble(self, sends: Sequence[Draft], what: str, then: str) -> None:
        if what == "broker":
            self.world.broker.stop()
        elif what == "disk":
            self.world.disk_full = True
        else:
            self.world.network = what
        self._send(sends)
        self._go_on(then)

    @precondition(lambda self: self.world.in_trouble)
    @rule(sends=SENDS, what=st.sampled_from([("network",), ("disk",), ("broker", "network", "disk")]), then=THEN)
    def mend(self, sends: Sequence[Draft], what: Sequence[str], then: str) -> None:
        self._send(sends)
        self._mend(*what)
        self._go_on(then)

    @rule(sends=SENDS)
    def copy(self, sends: Sequence[Draft]) -> None:
        """Have the broker send something twice over."""
        self._send(sends)
        if copied := self.world.broker.copy():
            self.world.ledger.copied(int(copied.properties["number"]))

    @rule(sends=SENDS, boundaries=st.integers(0, 12), then=THEN)
    def kill(self, sends: Sequence[Draft], boundaries: int, then: str) -> None:
        """Kill the plugin now, or after so many points from here where it makes a difference."""
        self._send(sends)
        if boundaries:
            self.world.fuse = boundaries
        else:
            self._act(lambda process: process.kill("at rest"))
        self._go_on(then)

    @rule(sends=SENDS, then=THEN)
    def stop(self, sends: Sequence[Draft], then: str) -> None:
        self._send(sends)
        self._act(lambda process: process.stop())
        self._go_on(then)

    @rule(sends=SENDS, everything=st.booleans(), then=THEN)
    def release(self, sends: Sequence[Draft], everything: bool, then: str) -> None:
        self._send(sends)
        self._act(lambda process: process.release(everything))
        self._go_on(then)

    @precondition(lambda self: self.world.tickets)
    @rule(sends=SENDS, which=st.integers(0, 3), then=THEN)
    def answer(self, sends: Sequence[Draft], which: int, then: str) -> None:
        self._send(sends)
        self._go_on("nothing")
        ticket = self.world.tickets[-1 - which % len(self.world.tickets)]
        self._act(lambda process: process.answer(ticket))
        self._go_on(then)

    # --- how ----------------------------------------------------------------------------------------------------------

    def _send(self, drafts: Sequence[Draft]) -> None:
        for draft in drafts:
            handler, _, key = draft.to.partition(" ")
            lane = LANES[handler]
            sent = Sent(len(self.world.ledger.sent), handler, lane.topic.replace("{key}", key), b"{}", draft.qos)
            sent.waits, sent.ends = draft.waits, draft.ends
            if lane.field and draft.name != "none":
                self._name(sent, draft.name)
            if sent.ends == "misfit":
                sent.payload, sent.identity = b"[]", None
            elif sent.ends in ("defer", "early") and not lane.command:
                sent.ends = "ok"
            self.world.ledger.sent.append(sent)
            properties = {"number": str(sent.number)}
            sent.taken = self.world.broker.offer(
                Received(sent.topic, sent.payload, sent.qos, received_at=EPOCH + self.now, properties=properties)
            )

    def _name(self, sent: Sent, name: str) -> None:
        known = [one for one in self.world.ledger.sent if one.handler == sent.handler and one.identity]
        sent.identity = known[-1].identity if known and name != "new" else str(sent.number)
        content = {"other": 1} if name == "other" else {}
        sent.payload = json.dumps({str(sent.lane.field): sent.identity} | content).encode()

    def _saw(self, publication: Publication) -> None:
        if publication.topic.startswith("P/Responses/"):
            answer = json.loads(publication.payload)
            if "ok" in answer and answer["correlationId"] is not None:
                self.world.ledger.answers[answer["correlationId"]] += 1

    def _go_on(self, then: str) -> None:
        if self.process is None:
            self.world.runs += 1
            self.process = Process(self.world, self.world.folder, self.now)
            self._act(lambda process: process.loop.step())
        if then.endswith("turns"):
            for _ in range(2 if then.startswith("two") else 4):
                self._act(lambda process: process.loop.step())
        elif then != "nothing":
            self._wait({"run": 0.0, "wait": 1.5, "wait long": 5.0}[then])

    def _wait(self, seconds: float) -> None:
        self._act(lambda process: process.loop.run(seconds))

    def _act(self, act: Act) -> None:
        """Do something with the process, which it may not survive."""
        process = self.process
        if process is None:
            return
        act(process)
        self.now = process.loop.now
        if process.over:
            self.process, self.world.fuse = None, 0
            self.world.folder = process.bury()
        try:
            self.world.ledger.check()
        except Broken:
            self.is_broken = True
            raise

    def _mend(self, *what: str) -> None:
        self.world.broker.up |= "broker" in what
        self.world.disk_full &= "disk" not in what
        if "network" in what:
            self.world.network = "well"
            if self.process is not None and self.process.wire is not None:
                self.process.wire.catch_up()

    # --- the end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "world") and not self.is_broken:
                self._come_to_rest()
                self._settle()
        finally:
            if self.process is not None:
                self.process.kill("the test is over")
                self.process.bury()
            shutil.rmtree(self.root)

    def _come_to_rest(self) -> None:
        """Let everything be well again, and wait until nothing moves."""
        self.world.patient, self.world.fuse = False, 0
        # Without a journal an answer is in memory alone, where it does not stay for ever, nor longer than the run.
        self.is_quick = self.world.runs == 1 and self.process is not None and self.now < MAX_AGE - 100.0
        self._mend("broker", "network", "disk")
        for _ in range(2):  # What a run could not write down, and has not in memory any more, is the next one's.
            self._go_on("nothing")
            self._act(lambda process: process.release(True))
            self._wait(100.0)
            self.world.broker.cut(CLIENT)
            refused = self.refused()
            self._wait(100.0)
            if self.world.broker.keeps and refused == self.refused():
                self._look_for_left()
            for ticket in Disk.read(self.world.folder).tickets:
                self._act(lambda process, ticket=ticket: process.answer(ticket))  # type: ignore[misc]
            self._act(lambda process: process.stop())

    def refused(self) -> int:
        """Return how many messages the plugin has left to the broker."""
        return 0 if self.process is None else self.process.counters.get("refused", 0)

    def _look_for_left(self) -> None:
        if left := self.world.broker.pending():
            raise Broken(f"messages {[one.properties['number'] for one in left]} are with the broker still")

    def _settle(self) -> None:
        """Look what became of each message."""
        world, disk = self.world, Disk.read(self.world.folder)
        if disk.waiting or disk.tickets:
            raise Broken(f"messages {[*disk.waiting, *disk.tickets.values()]} are in the journal still")
        for number in disk.crashed:
            if len(set(world.ledger.sent[number].begun)) + world.cut_short < 2:
                raise Broken(f"message {number} was given up, and has hardly been tried")
        for sent in world.ledger.sent:
            if sent.qos and (sent.taken if world.broker.keeps else sent.acknowledged):
                if not world.ledger.settled(sent, disk.dead):
                    raise Broken(f"message {sent.number} was lost")
                due = world.journal or self.is_quick
                if due and sent.correlation and not world.ledger.answers[sent.correlation]:
                    raise Broken(f"command {sent.number} was never answered")
