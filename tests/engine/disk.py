"""An outbox with a file, for tests: what it wrote, what it told, and a disk that is full."""

import resource
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from kepm_plugin.message import Publication
from kepm_plugin.outbox import Outbox
from kepm_plugin.store import FILE, Keep, Store
from tests.engine.test_outbox import Clock, one


@dataclass
class Disk:
    """An outbox on a store, and what it told."""

    store: Store
    outbox: Outbox
    troubles: list[str | None] = field(default_factory=list[str | None])
    commits: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Of each commit: how many publications it kept, and how many it forgot."""

    async def put(self, *names: object, wait: Any = "queued", timeout: float | None = None) -> None:
        for name in names:
            await self.outbox.put(one(name), wait=wait, timeout=timeout, kind=Keep.PUBLICATION)

    def put_soon(self, *names: object) -> None:
        for name in names:
            assert self.outbox.put_soon(one(name), kind=Keep.PUBLICATION)

    def answer(self, name: object) -> None:
        """As a message's end does: kept in its commit, then handed over."""
        [number] = self.store.finish(0, [one(name)])
        self.outbox.answer(one(name), number)

    def kept(self) -> list[bytes]:
        return [publication.payload for _, publication in self.store.kept()]


@asynccontextmanager
async def on_disk(
    store: Store, *, keeping: bool = True, clock: Clock | None = None, **limits: int
) -> AsyncGenerator[Disk]:
    """An outbox that writes and reads while the context is open; what ends it may as well be a kill."""
    disk = Disk(store, Outbox(clock or Clock(), **limits))
    real = store.keep

    def keep(batch: Sequence[tuple[Keep, Publication]], sent: Sequence[int] = ()) -> list[int]:
        ids = real(batch, sent)
        if batch or sent:
            disk.commits.append((len(batch), len(sent)))
        return ids

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "keep", keep)
        disk.outbox.open(store, disk.troubles.append, keeping=keeping)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(disk.outbox.run)
            yield disk
            tasks.cancel_scope.cancel()


def numbers(*among: range | int) -> list[bytes]:
    return [b"%d" % number for one in among for number in (one if isinstance(one, range) else [one])]


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


@contextmanager
def full_disk(folder: Path) -> Generator[None]:
    """Let the file of a store grow no more: SQLite hears from the system what it hears when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / f"{FILE}-wal").stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
