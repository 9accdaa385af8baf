"""What a run of a plugin needs from outside, and how it ends."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

import anyio
from msgspec import Struct

from kepm_plugin.contract import Contract
from kepm_plugin.errors import KepmError
from kepm_plugin.link import Deliver, Session
from kepm_plugin.live import Agent
from kepm_plugin.logs import LogControl, LogPipe
from kepm_plugin.message import Publication
from kepm_plugin.store import Limits, Store

OpenSession = Callable[[str, int, Publication | None, Deliver], AbstractAsyncContextManager[Session]]
"""Connects to the broker at host and port, with a last will."""


class OpenStore(Protocol):
    """Opens the plugin's file."""

    def __call__(self, *, limits: Limits) -> AbstractContextManager[Store]:
        """Open it, to grow no larger than these limits."""
        ...


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a plugin runs in; the real thing, or a test's."""

    agent: Agent
    open_session: OpenSession
    open_store: OpenStore
    """Called once this copy is the one that handles, as another may write to it before."""
    pipe: LogPipe
    logs: LogControl
    contract: Contract
    stop: anyio.Event
    """Set when the process is asked to stop."""
    try_lock: Callable[[], bool]
    """Try to become the one copy that handles."""
    orphaned: Callable[[], bool]
    """Whether the process that launched us is gone."""
    alive: Callable[[], object] = lambda: None
    """Told every few seconds that the link is up, and the event loop alive."""
    press: Callable[[], object] = lambda: None
    """Do what can be done about a copy that handles and cannot give way; called by one that stands by."""
    ending: Callable[[float, int], object] = lambda _seconds, _code: None
    """Told, when the run begins to end, how many seconds it has and what the process then returns in any case."""
    stalls: Callable[[], int] = lambda: 0
    """How often the author's code has blocked the event loop."""
    stall: Callable[[float], object] = lambda _seconds: None
    """Told for how many seconds the author's code may block the event loop from now on."""
    start_budget: float = 60.0
    """Seconds for which refusals of the agent are not final."""
    settings_folder: Path | None = None
    """Where the files of the settings lie; None: nothing of them is kept."""
    settle: float = 0.3
    """Seconds from a look that found new settings to the one that must agree with it."""
    lock_retry: float = 0.05
    """Seconds between two tries of a copy that stands by."""


class Outcome(Struct, frozen=True):
    """How a run ended."""

    error: KepmError | None
    cut_off: bool
    """Whether handlers had to be cut off."""
