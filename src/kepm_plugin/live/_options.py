"""What live settings need from outside, and whom they tell."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from kepm_plugin.contract import ASSUMED, Contract
from kepm_plugin.settings import Change


def _cut(text: str, limit: int) -> str:
    return text[:limit]


class LiveOptions(Struct, frozen=True, kw_only=True):
    """How to look, and where to keep files. Times are in seconds."""

    interval: Callable[[], float]
    """Between two looks; asked each time."""
    settle: float = 0.3
    """From a look that found something new to the one that must agree with it."""
    folder: Path | None = None
    """Where the plugin's files lie; None: nothing is kept."""
    contract: Contract = ASSUMED
    redact: Callable[[str, int], str] = _cut
    """Masks secrets in a text that is published; the limit is in characters."""


def _nobody(*_: object) -> None:
    """Tell nobody."""


class Told(Struct, frozen=True, kw_only=True):
    """Who is told of what."""

    taken: Callable[[Any], object]
    """Is given each snapshot that counts from now on."""
    changed: Callable[[Change[Any]], Awaitable[object]]
    """Awaited after a snapshot that differs from the one before was taken; never twice at a time."""
    trouble: Callable[[str | None], object] = _nobody
    """Is given the reason why what the agent has is not in force; None when that is over."""
    reported: Callable[[], object] = _nobody
    """Called when `LiveSettings.report` has something new."""
    seen: Callable[[Mapping[str, str]], object] = _nobody
    """Is given the agent's texts, all of them, once two looks agree, whether or not they follow the rules."""
