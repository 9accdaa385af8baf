"""The campaign, played: edits, others who write, faults and kills, all at the same time; then everything at rest."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from kepm_plugin.errors import KepmError
from tests.chaos.edits.aims import plan
from tests.chaos.edits.editing_plugin import Editing
from tests.chaos.edits.evidence import Evidence
from tests.chaos.edits.foreign import Others
from tests.chaos.edits.notes import read_notes
from tests.chaos.edits.orders import Slot
from tests.chaos.edits.rig import COMES_UP, campaign
from tests.chaos.edits.weather import BRIEF, PLAN, Weather

LOOKERS: Final = 3
"""Threads that have handlers look at the settings all the time."""

MOST: Final = 3
"""Runs at most, compared with the kills that there are to be."""

MEANWHILE: Final = 0.3
"""Part of the kills after which others write before the plugin is there again."""


def play(
    seed: str,
    kills: int,
    transactions: int,
    *,
    disturbed: bool = True,
    brief: bool = False,
    told: Callable[[str], object] = lambda _: None,
    keep: Path | None = None,
) -> Evidence:
    """Play the campaign, and return what there is to judge.

    Args:
        seed: Of all that is random, except what the machine decides.
        kills: How often the plugin is killed amid a transaction; other kills come on top.
        transactions: How many it begins, at least.
        disturbed: Whether there are faults, and others who write.
        brief: Whether there are only faults for which nobody has to wait for seconds.
        told: Is given a line now and then.
        keep: A folder that is to hold notes and output.
    """
    with campaign(seed, keep) as made:
        control = made.agent.control
        pace = made.orders.pace
        others = Others(control, made.random("others"), pace)
        weather = Weather(control, made.random("weather"), pace, BRIEF if brief else tuple(PLAN))
        lookers = [partial(made.look_until, number) for number in range(LOOKERS)]
        with _going_on(made.haste_until, made.witness_until, *lookers):
            with _going_on(*([others.write_until, weather.blow_until] if disturbed else [])):
                meanwhile = made.random("meanwhile")
                intents = plan(made.random("kills"), transactions / max(kills, 1))
                while (amid := made.amid) < kills:
                    assert made.orders[Slot.RUN] < MOST * kills, "hardly any run comes to a transaction"
                    made.kill(next(intents))
                    if disturbed and meanwhile.random() < MEANWHILE:
                        others.write()
                    if made.amid > amid and made.amid % 10 == 0:
                        told(f"{made.amid} of {kills} kills, {made.orders[Slot.NUMBER]} transactions")
                pid, mark = made.start()
                patience = transactions / 2 + COMES_UP
                made.until(lambda: made.orders[Slot.NUMBER] >= transactions, patience, made.gone(pid, mark))
            control.clear_faults()
            made.up(pid, mark)
        if made.gone(pid, mark)():
            made.note_end(pid, mark)
            pid, mark = made.start()
            made.up(pid, mark)
        mine, theirs = made.settled(others)
        with suppress(KepmError):
            control.stop(Editing.id)
        notes = read_notes(made.work / "notes")
        return Evidence(
            seen=notes.seen,
            transactions=notes.transactions,
            others=others.written,
            held=made.held,
            kills=made.kills,
            faults=weather.set,
            asked=made.asked,
            ended_by_itself=made.ended_by_itself,
            mine=mine,
            theirs=theirs,
            intents=made.intents(),
            leaks=made.leaks(),
        )


@contextmanager
def _going_on(*loops: Callable[[threading.Event], object]) -> Generator[None]:
    """Run loops in threads for the time of the block; what one of them raises is raised at its end."""
    stopped = threading.Event()
    with ThreadPoolExecutor(max(len(loops), 1), "goes on") as pool:
        running = [pool.submit(loop, stopped) for loop in loops]
        try:
            yield
        finally:
            stopped.set()
    for each in running:
        each.result()
