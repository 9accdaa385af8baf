"""What outlives a run of the plugin: broker and ledger, the folder on disk, and what is wrong at the moment."""

import atexit
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from kepm_plugin.store import FILE, open_store

from .ledger import Ledger
from .network import Broker


@dataclass
class World:
    """What outlives a run."""

    folder: Path
    broker: Broker
    ledger: Ledger
    journal: bool
    network: str = "well"
    """Or `slow`: what the plugin sends is under way; `mute`: its publications are; `deaf`: no confirmation comes."""
    disk_full: bool = False
    patient: bool = True
    """False ends all waiting of handlers."""
    fuse: int = 0
    """After so many boundaries the process is killed; 0 never."""
    tickets: list[str] = field(default_factory=list[str])
    runs: int = 0
    cut_short: int = 0
    """Kills between the count of a delivery and its begin."""

    @property
    def in_trouble(self) -> bool:
        """Whether anything is not as it should be."""
        return self.network != "well" or self.disk_full or not self.broker.up


@dataclass(frozen=True)
class Disk:
    """What the file holds, as another process reads it."""

    waiting: Counter[int]
    """Messages in the journal that wait for a handler."""
    tickets: dict[str, int]
    dead: Counter[int]
    crashed: Counter[int]

    @classmethod
    def of(cls, db: sqlite3.Connection) -> "Disk":
        """Read it through a connection."""

        def numbers(found: sqlite3.Cursor) -> Counter[int]:
            return Counter(int(json.loads(properties)["number"]) for (properties,) in found)

        tickets = db.execute("SELECT ticket, properties FROM journal WHERE ticket IS NOT NULL")
        return cls(
            numbers(db.execute("SELECT properties FROM journal WHERE ticket IS NULL")),
            {ticket: int(json.loads(properties)["number"]) for ticket, properties in tickets},
            numbers(db.execute("SELECT properties FROM dead")),
            numbers(db.execute("SELECT properties FROM dead WHERE reason = 'crashed'")),
        )

    @classmethod
    def read(cls, folder: Path) -> "Disk":
        """Read a folder."""
        with closing(reader(folder)) as db:
            return cls.of(db)


def reader(folder: Path) -> sqlite3.Connection:
    """Return a connection of our own, which does not wait for the disk when it is the last to be closed."""
    db = sqlite3.connect(folder / FILE)
    db.execute("PRAGMA synchronous = OFF")
    return db


@cache
def empty_folder() -> Path:
    """Return a folder with an empty file in it: to make one takes long, as it waits for the disk."""
    folder = Path(mkdtemp(prefix="kepm-session-"))
    atexit.register(shutil.rmtree, folder)
    with open_store(folder):
        pass
    return folder
