"""The plugin of the scene `settings`: writes its own settings without pause, and notes whatever it sees of them."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, NotRequired, TypedDict

import anyio

from kepm_plugin import Change, Handler, Message, Plugin, Settings, background, setting
from kepm_plugin.errors import KepmError
from tests.chaos.edits.notes import (
    CANCELLED,
    DONE,
    EVERY_OTHER,
    SECRET,
    UNEXPECTED,
    Kind,
    Notebook,
    Snapshot,
    written_by,
)
from tests.chaos.edits.orders import Orders, Slot

MAX: Final = 1_000
"""Upper limit of both bounds."""

REST: Final = 0.25
"""Seconds that a writer waits for after an error, so that a fault of the agent does not use all transactions up."""

LOOK: Final = 0.01
"""Seconds between two looks whether it may go on."""

KINDS: Final[Sequence[Kind]] = ("edit", "breaks a rule", "author fails", "revert")
WEIGHTS: Final = (80, 7, 7, 6)
"""What a writer does, and how often of a hundred times."""


class Values(Settings):
    """The stamps of a transaction, and two bounds that belong together, in an order that mixes them."""

    x: int = 0
    low: int = setting(default=0, ge=0, le=MAX)
    y: int = 0
    token: str = setting(secret=True)
    high: int = setting(default=MAX, ge=0, le=MAX)
    trail: tuple[int, ...] = ()
    z: int = 0

    def validate(self) -> None:
        """The bounds are in order."""
        if self.low > self.high:
            raise ValueError("low must not be above high")


def snapshot_of(values: Values) -> Snapshot:
    """Return settings as numbers; a trail that is not of one piece shows as -1."""
    trail = set(values.trail) or {0}
    return Snapshot(
        x=values.x,
        y=values.y,
        z=values.z,
        trail=trail.pop() if len(trail) == 1 else -1,
        token=int(values.token.removeprefix(SECRET)),
        low=values.low,
        high=values.high,
    )


class Look(TypedDict):
    """A command to look at the settings, and for how many seconds."""

    pause: NotRequired[float]


class AuthorError(Exception):
    """What the author's own code raises in the middle of an edit."""


QUICK: Final = (DONE, "SettingsError", "SettingsConflict", AuthorError.__name__)
"""Outcomes after which the next one comes at once."""


@dataclass(slots=True)
class Begun:
    """A transaction under way."""

    number: int
    outcome: str = CANCELLED


class Editing(Plugin):
    """Changes its settings while others do."""

    id = "Editing"
    version = "1.0.0"
    settings: Values
    settings_interval = 0.5
    heartbeat = 1.0
    drain = 1.0
    notebook: Notebook
    orders: Orders
    random: Random
    calls = 0

    def look(self) -> Snapshot:
        """Return the settings of now, or of the call that is being served."""
        return snapshot_of(self.settings)

    def next_call(self) -> int:
        """Return the number of a handler's call."""
        self.calls += 1
        return self.calls

    @contextmanager
    def transaction(self, kind: Kind) -> Generator[Begun]:
        """Note begin and end of what the block does. Errors that are reported end here."""
        begun = Begun(self.orders.next_number())
        self.notebook.begun(begun.number, kind)
        self.orders[Slot.OPEN] += 1
        try:
            yield begun
            begun.outcome = DONE
        except (KepmError, AuthorError) as error:
            begun.outcome = type(error).__name__
        except Exception as error:  # noqa: BLE001  whatever comes instead of an error of the tree is for the verdict
            begun.outcome = f"{UNEXPECTED}{type(error).__name__}"
        finally:
            self.orders[Slot.OPEN] -= 1
            self.notebook.ended(begun.number, begun.outcome, self.look() if begun.outcome == DONE else None)

    async def edit(self, kind: Kind) -> str:
        """Write a number to all stamps, and sometimes the bounds; as `kind` says it fails. Return the outcome."""
        random = self.random
        with self.transaction(kind) as begun:
            number = begun.number
            async with self.edit_settings() as draft:
                draft.x = draft.y = draft.z = number
                draft.trail = (number, number)
                if EVERY_OTHER in written_by(number):
                    draft.token = f"{SECRET}{number}"
                if random.random() < 0.5:
                    draft.low = random.randint(0, MAX // 2)
                    draft.high = random.randint(draft.low, MAX)
                await anyio.sleep(random.choice((0.0, 0.0, 0.01)))
                if kind == "breaks a rule":
                    draft.low, draft.high = random.choice(((MAX, 0), (MAX + 1, MAX), (0, -1)))
                if kind == "author fails":
                    raise AuthorError
        return begun.outcome

    async def revert(self) -> str:
        """Go back to the file, and return the outcome."""
        with self.transaction("revert") as begun:
            await self.revert_settings()
        return begun.outcome

    async def write(self, pause: float) -> None:
        """Write for ever."""
        while True:
            while self.orders[Slot.PAUSED]:  # noqa: ASYNC110  nothing tells of a change in the memory of two processes
                await anyio.sleep(LOOK)
            (kind,) = self.random.choices(KINDS, WEIGHTS)
            outcome = await (self.revert() if kind == "revert" else self.edit(kind))
            await anyio.sleep(pause if outcome in QUICK else REST)

    @background(restart=True)
    async def write_all_the_time(self) -> None:
        """The first writer."""
        self.notebook.saw("up", self.look())
        self.orders[Slot.UP] = self.orders[Slot.RUN]
        await self.write(0.0)

    @background(restart=True)
    async def write_now_and_then(self) -> None:
        """The second writer, which meets the first one."""
        await self.write(0.3)

    async def on_settings_changed(self, change: Change[Values]) -> None:
        """Note what it is told."""
        self.notebook.saw("told", snapshot_of(change.new))
        self.notebook.saw("told", self.look())


@Editing.command("look")
class LookAround(Handler[Editing]):
    """Looks three times."""

    concurrency = 6

    async def handle(self, message: Message[Look]) -> dict[str, int]:
        plugin, pause = self.plugin, message.payload.get("pause", 0.0)
        call = plugin.next_call()
        plugin.notebook.saw("call", plugin.look(), call)
        for _ in range(2):
            await anyio.sleep(pause / 2)
            plugin.notebook.saw("call", plugin.look(), call)
        return plugin.look()._asdict()


@Editing.command("hasty")
class Hasty(Handler[Editing]):
    """Edits, and has hardly the time for it."""

    timeout = 0.03

    async def handle(self, message: Message[Look]) -> None:
        await self.plugin.edit("hasty")


@Editing.command("brisk")
class Brisk(Handler[Editing]):
    """Edits, and has the time where the agent is quick."""

    timeout = 0.1

    async def handle(self, message: Message[Look]) -> None:
        await self.plugin.edit("hasty")
