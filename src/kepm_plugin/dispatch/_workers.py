"""The tasks that handlers run in: one for all lanes whose handlers never wait, and tasks of its own for each other."""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from kepm_plugin.eventloop import bare_task_group

from ._apart import Apart
from ._lane import Lane, Work

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
        self._wanted = anyio.Event()
        """Lanes are ready, or it is over."""
        self._vacant = anyio.Event()
        """There is no runner, or it is over."""
        self._new_owners: list[Lane] = []
        self._burst_since = time.monotonic()
        self._closed = False

    def call(self, lane: Lane) -> None:
        """Run a lane that has something ready, and no tasks of its own."""
        self._ready.append(lane)
        self._wanted.set()

    def close(self) -> None:
        """Begin nothing more."""
        self._closed = True
        self._wanted.set()
        self._vacant.set()

    async def serve(self, lanes: Iterable[Lane], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run lanes until `close`; ends when the last running call has ended."""
        # One that is no coroutine runs in a thread, for which its task waits.
        self._new_owners += [lane for lane in lanes if not lane.route.spec.is_async]
        async with bare_task_group() as tasks:
            first = 0
            while not self._closed:
                for lane in self._new_owners:
                    lane.has_tasks = True
                    for number in range(first, lane.slots):
                        tasks.start_soon(self._work, lane, name=f"kepm.lane.{lane.route.spec.name}[{number}]")
                self._new_owners = []
                first = 1  # from now on one of its tasks is the runner that was
                self._vacant = anyio.Event()
                tasks.start_soon(self._run, name="kepm.lanes")
                task_status.started()
                task_status = anyio.TASK_STATUS_IGNORED
                await self._vacant.wait()

    async def _run(self) -> None:
        """Be the runner until a handler waits, then one of its lane's tasks."""
        owner: Lane | None = None
        try:
            while owner is None and not self._closed:
                if not self._ready:
                    self._wanted = anyio.Event()
                    await self._wanted.wait()
                    self._burst_since = time.monotonic()
                    continue
                lane = self._ready.popleft()
                lane.called = False
                if lane.has_tasks or (work := lane.take()) is None:
                    continue
                self._inside = lane
                try:
                    await Apart(self._handle(lane, work), self._waits)
                finally:
                    if lane.has_tasks:
                        owner = lane
                    else:
                        lane.rouse()
                if time.monotonic() - self._burst_since > BURST:
                    await self._give_way()
        finally:
            if owner is None:  # or else there is another runner already
                self._vacant.set()
        if owner is not None:
            await self._work(owner)

    def _waits(self) -> None:
        """Give the runner, which is about to wait for a handler, to that one's lane."""
        lane = self._inside
        if lane is not None:
            lane.has_tasks = True
            self._new_owners.append(lane)
            self._vacant.set()

    async def _work(self, lane: Lane) -> None:
        while (work := await lane.next()) is not None:
            await Apart(self._handle(lane, work))
            if time.monotonic() - self._burst_since > BURST:
                await self._give_way()

    async def _give_way(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._burst_since = time.monotonic()
