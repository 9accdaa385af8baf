"""One run of the plugin: the real parts, from the link to the file, until it stops, or is killed anywhere."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel

from kepm_plugin import Message, Rejected, Retry
from kepm_plugin.contract import ASSUMED
from kepm_plugin.errors import StoreError, UnknownTicket
from kepm_plugin.link import Deliver, Session
from kepm_plugin.logs import LogPipe
from kepm_plugin.message import Publication, Received
from kepm_plugin.runtime import Outcome, Serving, Surroundings
from kepm_plugin.store import FILE, Limits, Store, open_store
from kepm_plugin.testing import MemoryAgent

from .clockwork import Clockwork
from .ledger import Sent
from .network import CLIENT, Wire
from .scripts import plugin
from .world import Disk, World, empty_folder, reader


class Process:
    """The run. `alive` is False from the moment of the kill: what it does then, nobody sees."""

    def __init__(self, world: World, folder: Path, now: float) -> None:
        self.world, self.folder, self.ledger = world, folder, world.ledger
        self.kind = plugin(journal=world.journal, clean=not world.broker.keeps)
        self.alive = True
        if not folder.exists():
            shutil.copytree(empty_folder(), folder)
        self.wire: Wire | None = None
        self.loop = Clockwork(now)
        self.number = world.runs
        self.disk_failed = False
        """Whether the disk was full at any time."""
        self.left: Path | None = None
        """What the kill left of the folder."""
        self.taken = 0
        """Messages that the dispatcher got."""
        self.killed_at = ""
        self.killed_in = 0
        """In which turn of the loop."""
        self._gates: dict[int, anyio.Event] = {}
        self._begun: list[int] = []
        self._ended: dict[int, int] = {}
        """What is done for good, with the turn of the loop in which that was."""
        self._put_off: dict[int, str] = {}
        """What is to be tried again, with its topic."""
        self._cut_off = 0
        """Messages of QoS 0 whose handlers did not end by themselves."""
        self._reader: sqlite3.Connection | None = None
        self.inherited = Disk.read(folder).waiting.total() if (folder / FILE).exists() and world.journal else 0
        self._serving: Serving
        self._stop: anyio.Event
        self.task = self.loop.create_task(self._main())
        self.loop.set_exception_handler(self._unhandled)

    async def _main(self) -> Outcome:
        self._stop = anyio.Event()
        self._serving = Serving(
            self.kind,
            Surroundings(
                agent=MemoryAgent("P", {}),
                open_session=self._open_session,
                open_store=self._open_store,
                pipe=LogPipe(),
                logs=cast("Any", _NoLogs()),
                contract=ASSUMED,
                stop=self._stop,
                try_lock=lambda: True,
                orphaned=lambda: False,
                start_budget=0.0,
            ),
        )
        plugin: Any = self._serving.plugin
        plugin.process = self
        received = self._serving.uplink.received

        def count(batch: Sequence[Received], session: Session) -> None:
            refused = self.counters.get("refused", 0)
            self.taken += len(batch) if self.alive else 0
            received(batch, session)
            if self.counters.get("refused", 0) > refused:
                self.ledger.in_order = False

        cast("Any", self._serving.uplink).received = count
        return await self._serving.run()

    def _unhandled(self, _: object, context: dict[str, Any]) -> None:
        self.ledger.complain(f"the event loop says: {context.get('exception') or context['message']!r}")

    def _unheard(self, _: object, context: dict[str, Any]) -> None:
        """What goes wrong after the end is nobody's."""

    @property
    def counters(self) -> dict[str, int]:
        """What the dispatcher has counted."""
        dispatcher = self._serving.host.dispatcher
        return {} if dispatcher is None else dispatcher.counters.report()

    def _open_session(
        self, _host: str, _port: int, will: Publication | None, deliver: Deliver
    ) -> AbstractAsyncContextManager[Any]:
        return Wire(self).open(deliver, will)

    @contextmanager
    def _open_store(self, *, limits: Limits) -> Generator[Store]:
        with open_store(self.folder, limits=limits, now=self.loop.wall) as store:
            database: Any = cast("Any", store)._database
            with database.read("be quick") as connection:
                connection.execute("PRAGMA synchronous = OFF")  # what is copied was written, on the disk or not
            commit: Callable[[str], Any] = database.commit

            @contextmanager
            def watched(action: str) -> Generator[Any]:
                self.boundary(f"before: {action}")
                if self.world.disk_full and self.alive:
                    self.disk_failed = True
                    raise StoreError(f"cannot {action}: no space left")
                with commit(action) as connection:
                    yield connection
                self.boundary(f"after: {action}")

            database.commit = watched
            yield store

    # --- the end ------------------------------------------------------------------------------------------------------

    def boundary(self, where: str) -> None:
        """Pass a point where a kill makes a difference."""
        if self.alive and self.world.fuse:
            self.world.fuse -= 1
            if not self.world.fuse:
                self.kill(where)

    def kill(self, where: str) -> None:
        """End as `kill -9` does: what is on disk at this moment is what the next run finds."""
        self.alive, self.killed_at, self.killed_in = False, where, self.loop.turns
        self.world.cut_short += where in ("after: count a delivery", "a handler begins")
        self.left = self.folder.with_name(f"{self.folder.name}+")
        self.left.mkdir(mode=0o700)
        for name in (FILE, f"{FILE}-wal"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, self.left / name)
        self.world.broker.cut(CLIENT)
        if self.loop.is_running():
            self.loop.stop()

    @property
    def over(self) -> bool:
        """Whether it has ended, which it does when it is asked to, or dead."""
        if self.alive and self.task.done() and not self._stop.is_set():
            self.ledger.complain(f"the plugin ended by itself: {self.task}")
        return not self.alive or self.task.done()

    def stop(self) -> None:
        """Ask it to stop, and wait for the end."""
        self._stop.set()

        def ended(_: object) -> None:
            self.loop.stop()

        self.task.add_done_callback(ended)
        self.loop.run(60)
        self.task.remove_done_callback(ended)
        if self.alive and not self.task.done():
            self.ledger.complain("the plugin does not stop")

    def bury(self) -> Path:
        """Clear away what has ended, and look whether it should have left what it left; return the folder."""
        if self.alive and self.task.done() and (error := self.task.exception() or self.task.result().error):
            self.ledger.complain(f"the plugin crashed: {error!r}")
        self.loop.set_exception_handler(self._unheard)
        self.task.cancel()
        self.loop.finish(self._end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        if self._reader is not None:
            self._reader.close()
        folder = self.left or self.folder
        if folder is not self.folder:
            shutil.rmtree(self.folder)
        if (folder / FILE).exists():
            self._excuse(Disk.read(folder))
        return folder

    async def _end(self) -> None:
        with suppress(BaseException):
            await self.task

    def _excuse(self, disk: Disk) -> None:
        """Let be handled again what was in progress, or had ended in this turn of the loop or the one before."""
        strays: list[int] = []
        for number, count in Counter(self._begun).items():
            sent = self.ledger.sent[number]
            if disk.waiting[number]:
                sent.allowed += min(count, disk.waiting[number])
                lately = not self.alive and self.killed_in - self._ended.get(number, 0) <= 1
                if number in self._ended and sent.deliveries == 1 and not lately:
                    strays.append(number)
        if not self.disk_failed and strays:
            self.ledger.complain(f"messages {strays} were done, and are in the journal still")
        if self.alive and self.world.journal and not self.disk_failed:
            ended = sum(count for name, count in self.counters.items() if name not in ("retried", "refused"))
            left = self.inherited + self.taken - ended - disk.waiting.total()
            if not 0 <= left <= self._cut_off:
                self.ledger.complain(
                    f"{self.inherited} + {self.taken} messages came, {ended} are counted and {left} are missing: "
                    f"{self.counters}"
                )

    # --- what the handlers do -----------------------------------------------------------------------------------------

    async def handle(self, message: Message[dict[str, object]]) -> object:
        """Do what the ledger says."""
        number = int(message.properties["number"])
        self.boundary("a handler begins")
        if not self.alive:
            return None
        sent = self.ledger.sent[number]
        self._begun.append(number)
        self._ended.pop(number, None)
        self.ledger.begins(number, self.number)
        self._look_at_order(sent)
        how = "cut"
        try:
            if sent.ends in ("defer", "early"):
                ticket = message.defer()
                self.world.tickets.append(ticket)
                self.ledger.deferred(number, ticket)
                if sent.ends == "early":
                    await self._serving.plugin.answer(ticket, number)
            await self._wait(sent, message)
            how = sent.ends
            if how == "flaky":
                how = "fail" if len(sent.begun) == 1 else "ok"
            elif how == "retry" and len(sent.begun) > 2:
                how = "ok"
        finally:
            if self.alive:
                self._cut_off += how == "cut" and not sent.qos
                if how not in ("cut", "retry") and not (how == "fail" and sent.lane.retries):
                    self._ended[number] = self.loop.turns
                self.ledger.ends(number, how)
                if how == "retry":
                    self._put_off[number] = sent.topic
        if how == "retry":
            raise Retry(after=2.0)
        if how == "reject":
            raise Rejected(f"no: {number}")
        if how == "fail":
            raise ValueError(number)
        return None if how in ("defer", "early") else number

    def _look_at_order(self, sent: Sent) -> None:
        self._put_off.pop(sent.number, None)
        if self.world.journal and sent.lane.ordered and sent.topic in self._put_off.values():
            self.ledger.complain(f"message {sent.number} was handled before one that was put off: {self._put_off}")

    async def _wait(self, sent: Sent, message: Message[dict[str, object]]) -> None:
        if sent.waits == "turn":
            await anyio.lowlevel.checkpoint()
        elif sent.waits == "tell" and sent.lane.command:
            await message.progress("half")
        elif sent.waits == "nap":
            await anyio.sleep(0.5)
        elif sent.waits == "hang" and self.world.patient:
            gate = self._gates[sent.number] = anyio.Event()
            await gate.wait()

    def release(self, everything: bool) -> None:
        """Let the handler that hangs for the longest time go on, or all."""
        for number in list(self._gates):
            self._gates.pop(number).set()
            if not everything:
                return

    def answer(self, ticket: str) -> None:
        """Answer a ticket, as the plugin does somewhere else."""
        if self._serving.host.dispatcher is None:  # It has not read its settings yet.
            return
        due = ticket in self.disk().tickets and not self.world.disk_full
        task = self.loop.create_task(self._serving.plugin.answer(ticket, "later"))
        self.loop.run()
        if self.alive:
            try:
                task.result()
            except UnknownTicket as exc:
                if due:
                    self.ledger.complain(f"{exc}, but it is on disk")
        else:
            task.cancel()

    # --- what is looked at --------------------------------------------------------------------------------------------

    def disk(self) -> Disk:
        """Return what is in the file."""
        if self._reader is None:
            self._reader = reader(self.folder)
        return Disk.of(self._reader)

    def acknowledging(self, number: int) -> None:
        """Look whether a message may be acknowledged."""
        sent, disk = self.ledger.sent[number], self.disk()
        if self.world.journal:
            if not (disk.waiting[number] or disk.dead[number]):
                self.ledger.complain(f"message {number} was acknowledged before it was in the journal")
        elif not self.ledger.settled(sent, {*disk.dead, *disk.tickets.values()}):
            self.ledger.complain(f"message {number} was acknowledged before it was handled")


class _NoLogs:
    level = "Information"

    def fallback(self, on: bool) -> None:
        """Nobody reads them."""
