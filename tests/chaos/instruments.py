"""Instruments on the real framework, from outside: they tell the reaper what happens to messages, and change nothing.

Only names that the framework's own parts call each other by are wrapped.
"""

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kepm_plugin.broker import Link
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.message import Publication, Received
from kepm_plugin.outbox import Outbox
from kepm_plugin.store import Journalled, Store
from tests.chaos.black_box import Phase
from tests.chaos.chaos_plugin import HANDLERS, Chaos
from tests.chaos.reaper import Reaper

Acknowledge = Callable[[Sequence[int]], None]


@dataclass(slots=True)
class Owed:
    """Answers that were committed and have not come to the outbox; they are counted as unsent already."""

    count: int = 0


TURNS = 3
"""Turns of the event loop after which what was queued for the socket has been written: woken, watched, written."""


def instrument(reaper: Reaper, responses: str) -> None:
    """Wrap the framework in this process. `responses` begins the topics of answers."""
    owed = Owed()
    _receiving(reaper)
    _store(reaper, owed)
    _handlers(reaper)
    _answers(reaper, owed, responses)
    _sessions(reaper)


def _receiving(reaper: Reaper) -> None:
    receive = Dispatcher.receive
    # With a journal the acknowledgement ends its own phase, without one that behind the handler.
    phase = Phase.TO_ACKNOWLEDGEMENT if Chaos.journal else Phase.TO_DONE

    def watched(self: Dispatcher, batch: Sequence[Received], acknowledge: Acknowledge) -> None:
        counted = [received for received in batch if received.mid]
        if counted:
            numbers = [json.loads(received.payload)["number"] for received in counted]
            if Chaos.journal:
                reaper.add(Phase.BEFORE_COMMIT, len(counted))
            Chaos.ledger.note("t", Chaos.run, *numbers)
            if Chaos.journal:
                reaper.reached(Phase.BEFORE_COMMIT)

        def taken(mids: Sequence[int]) -> None:
            reaper.moment(phase)
            acknowledge(mids)
            reaper.moment(phase)
            _after(TURNS, functools.partial(written, len(mids)))

        def written(count: int) -> None:
            reaper.acknowledged(count)
            reaper.leave(phase, count)

        receive(self, batch, taken)

    Dispatcher.receive = watched  # type: ignore[method-assign]


def _after(turns: int, function: Callable[[], None]) -> None:
    if turns:
        asyncio.get_running_loop().call_soon(_after, turns - 1, function)
    else:
        function()


def _store(reaper: Reaper, owed: Owed) -> None:
    journal, finish, finish_all, bury = Store.journal, Store.finish, Store.finish_all, Store.bury

    def journalled(self: Store, batch: Sequence[Received]) -> list[Journalled]:
        reaper.moment(Phase.BEFORE_COMMIT)
        rows = journal(self, batch)
        reaper.add(Phase.TO_ACKNOWLEDGEMENT, len(batch))
        reaper.leave(Phase.BEFORE_COMMIT, len(batch))
        reaper.reached(Phase.TO_ACKNOWLEDGEMENT)
        return rows

    def ended(write: Callable[..., list[int]]) -> Any:
        @functools.wraps(write)
        def watched(*args: Any, **kwargs: Any) -> list[int]:
            handled = bool(reaper.count(Phase.TO_DONE))  # what is given up or does not fit had no handler's call
            if handled:
                reaper.moment(Phase.TO_DONE)
            kept = write(*args, **kwargs)
            owed.count += len(kept)
            reaper.add(Phase.ANSWER_UNSENT, len(kept))
            if handled:
                reaper.leave(Phase.TO_DONE)
            if kept:
                reaper.reached(Phase.ANSWER_UNSENT)
            return kept

        return watched

    def ended_together(self: Store, ids: Sequence[int]) -> None:
        handled = min(len(ids), reaper.count(Phase.TO_DONE))
        if handled:
            reaper.moment(Phase.TO_DONE)
        finish_all(self, ids)
        reaper.leave(Phase.TO_DONE, handled)

    Store.journal = journalled  # type: ignore[method-assign]
    Store.finish_all = ended_together  # type: ignore[method-assign]
    Store.finish = ended(finish)  # type: ignore[method-assign]
    Store.bury = ended(bury)  # type: ignore[method-assign]


def _handlers(reaper: Reaper) -> None:
    begins = Chaos.begins

    def begun(self: Chaos, message: Any) -> None:
        reaper.add(Phase.IN_HANDLER)
        begins(self, message)
        reaper.reached(Phase.IN_HANDLER)

    Chaos.begins = begun  # type: ignore[method-assign]
    for handler in HANDLERS:
        handle: Any = handler.handle
        kind: Any = handler
        kind.handle = _async(reaper, handle) if inspect.iscoroutinefunction(handle) else _sync(reaper, handle)


def _async(reaper: Reaper, handle: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handle)
    async def watched(*args: Any) -> Any:
        try:
            result = await handle(*args)
            reaper.moment(Phase.IN_HANDLER)
            reaper.add(Phase.TO_DONE)  # not where it was cancelled: such a message stays in the journal
        finally:
            reaper.leave(Phase.IN_HANDLER)
        reaper.reached(Phase.TO_DONE)
        return result

    return watched


def _sync(reaper: Reaper, handle: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handle)
    def watched(*args: Any) -> Any:
        try:
            result = handle(*args)
            reaper.moment(Phase.IN_HANDLER)
            reaper.add(Phase.TO_DONE)
        finally:
            reaper.leave(Phase.IN_HANDLER)
        reaper.reached(Phase.TO_DONE)
        return result

    return watched


def _answers(reaper: Reaper, owed: Owed, responses: str) -> None:
    answer, publish = Outbox.answer, Link.publish
    waiting = set[bytes]()

    def taken(self: Outbox, publication: Publication, *args: Any, **kwargs: Any) -> None:
        waiting.add(publication.payload)
        if owed.count:
            owed.count -= 1
        else:  # of a plugin without a journal
            reaper.enter(Phase.ANSWER_UNSENT)
        answer(self, publication, *args, **kwargs)

    def sent(self: Link, publication: Publication, acknowledged: Callable[[], None] | None = None) -> None:
        if not publication.topic.startswith(responses):
            publish(self, publication, acknowledged)
            return
        if publication.payload not in waiting:  # kept by an earlier run
            waiting.add(publication.payload)
            reaper.enter(Phase.ANSWER_UNSENT)

        def seen() -> None:
            if publication.payload in waiting:
                reaper.moment(Phase.ANSWER_UNSENT)
                waiting.remove(publication.payload)
                reaper.leave(Phase.ANSWER_UNSENT)
            if acknowledged is not None:
                acknowledged()

        publish(self, publication, seen)

    Outbox.answer = taken  # type: ignore[method-assign]
    Link.publish = sent  # type: ignore[method-assign]


def _sessions(reaper: Reaper) -> None:
    new_session = Dispatcher.new_session

    def watched(self: Dispatcher, present: bool) -> None:
        new_session(self, present)
        reaper.up()
        print(f"run {Chaos.run} is up", flush=True)  # The agent shows it, and so tells the harness.

    Dispatcher.new_session = watched  # type: ignore[method-assign]
