"""Frameworks with a mistake each: the harness must find what they lose, or it finds nothing.

A mutant is put in place before the instruments, which take it for the framework.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.message import Publication, Received
from kepm_plugin.store import Keep, Store
from tests.chaos.reaper import Reaper

PAUSE = 0.03
"""Seconds for an acknowledgement that comes too early to reach the broker."""


def acknowledge_before_the_commit(reaper: Reaper) -> None:
    """What was acknowledged is in memory only, for a moment."""
    receive = Dispatcher.receive

    def early(self: Dispatcher, batch: Sequence[Received], acknowledge: Callable[[Sequence[int]], None]) -> None:
        acknowledge([received.mid for received in batch if received.mid])
        asyncio.get_running_loop().call_later(PAUSE, receive, self, batch, _nothing)

    Dispatcher.receive = early  # type: ignore[method-assign]


def acknowledge_on_arrival(reaper: Reaper) -> None:
    """With `journal = False`: what was acknowledged is in memory only, until it was handled."""
    receive = Dispatcher.receive

    def early(self: Dispatcher, batch: Sequence[Received], acknowledge: Callable[[Sequence[int]], None]) -> None:
        acknowledge([received.mid for received in batch if received.mid])
        receive(self, batch, _nothing)

    Dispatcher.receive = early  # type: ignore[method-assign]


def finish_before_the_answer_is_kept(reaper: Reaper) -> None:
    """A message is done in one commit, and its answer is only in memory."""
    finish = Store.finish

    def forgetful(self: Store, id: int, answers: Sequence[Publication] = ()) -> list[int]:  # noqa: A002
        finish(self, id, ())
        return []

    Store.finish = forgetful  # type: ignore[method-assign]


def never_done(reaper: Reaper) -> None:
    """Each run handles again what an earlier one handled."""

    def idle(self: Store, id: int, answers: Sequence[Publication] = ()) -> list[int]:  # noqa: A002
        return self.keep([(Keep.ANSWER, answer) for answer in answers])

    def never(self: Store, ids: Sequence[int]) -> None:
        pass

    Store.finish = idle  # type: ignore[method-assign]
    Store.finish_all = never  # type: ignore[method-assign]


def _nothing(mids: Sequence[int]) -> None:
    pass


MUTANTS: dict[str, Callable[[Reaper], Any]] = {
    "acknowledge-before-commit": acknowledge_before_the_commit,
    "acknowledge-on-arrival": acknowledge_on_arrival,
    "answer-not-kept": finish_before_the_answer_is_kept,
    "never-done": never_done,
}
