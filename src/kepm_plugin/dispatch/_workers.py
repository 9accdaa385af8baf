"""The tasks that handlers run in: one for all lanes whose handlers never wait, and tasks of its own for each other."""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from kepm_plugin.eventloop import bare_task_group

from ._apart import Apart
from ._lane import Lane
from ._work import Work

BURST: Final = 0.005
"""Seconds before the loop gets a turn: a handler that never waits must not starve the reader."""

Handle = Callable[[Lane, Work], Coroutine[Any, Any, None]]


class Workers:
    """Runs lanes.

    To go on in another task costs more than to handle a message. So one task, the runner, takes a message from each
    ready lane in turn, as long as handlers end without waiting. Once a handler has waited, that task is its lane's for
    good, with as many others as the lane has slots, and there is a new runner. So handlers wait side by side, and what
    one does to its task, such as leaving a cancel scope open, concerns its own lane alone.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._ready: deque[Lane] = deque()
        self._inside: Lane | None = None
        """Whose message the runner handles."""
        self._idle = False
        """The runner waits until lanes are ready, or it is over."""
        self._wanted = anyio.Event()
        self._vacant = anyio.Event()
        """There is no runner, or it is over."""
        self._new_owners: list[Lane] = []
        self._burst_since = time.monotonic()
        self._closed = False

    def call(self, lane: Lane) -> None:
        """Run a lane that has something ready, and no tasks of its own."""
        self._ready.append(lane)
        if self._idle:
            self._wanted.set()

    def close(self) -> None:
        """Begin nothing more."""
        self._closed = True
        self._wanted.set()
        self._vacant.set()

    async def serve(self, lanes: Iterable[Lane], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run lanes until `close`; ends when the last running call has ended."""
        async with bare_task_group() as tasks:
            for lane in lanes:
                if not lane.route.spec.is_async:  # it runs in a thread, for which its task waits
                    self._give_tasks(tasks, lane, 0)
            while not self._closed:
                tasks.start_soon(self._run, name="kepm.lanes")
                task_status.started()
                task_status = anyio.TASK_STATUS_IGNORED
                await self._vacant.wait()
                self._vacant = anyio.Event()
                for lane in self._new_owners:
                    self._give_tasks(tasks, lane, 1)
                self._new_owners = []

    def _give_tasks(self, tasks: TaskGroup, lane: Lane, first: int) -> None:
        lane.has_tasks = True
        for number in range(first, lane.slots):
            tasks.start_soon(self._work, lane, name=f"kepm.lane.{lane.route.spec.name}[{number}]")

    async def _run(self) -> None:
        """Be the runner until a handler waits, then one of its lane's tasks."""
        while not self._closed:
            if not self._ready:
                self._wanted, self._idle = anyio.Event(), True
                await self._wanted.wait()
                self._idle = False
                self._burst_since = time.monotonic()
                continue
            lane = self._ready.popleft()
            lane.called = False
            if lane.has_tasks or (work := lane.take()) is None:
                continue
            self._inside = lane
            await Apart(self._handle(lane, work), self._waits)
            if lane.has_tasks:
                await self._work(lane)
                return
            lane.rouse()
            if time.monotonic() - self._burst_since > BURST:
                await self._give_way()

    def _waits(self) -> None:
        """Give the runner, which is about to wait for a handler, to that one's lane."""
        if self._inside is not None:
            self._inside.has_tasks = True
            self._new_owners.append(self._inside)
            self._vacant.set()

    async def _work(self, lane: Lane) -> None:
        while (work := await lane.next()) is not None:
            await Apart(self._handle(lane, work))
            if time.monotonic() - self._burst_since > BURST:
                await self._give_way()

    async def _give_way(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._burst_since = time.monotonic()
