"""Importing without the garbage collector, which finds nothing then: what a module defines stays."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def importing() -> Generator[None]:
    """Import inside: else the collector would look, ten times a start, through all that has been imported so far."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            _leave_alone()
            gc.enable()


def _leave_alone() -> None:
    """Have what is there count as old, as if it had outlived the collections that were left out.

    Else the first one would make up for them all. Freezing and unfreezing moves whole lists, and looks at nothing.
    """
    if not gc.get_freeze_count():  # else unfreezing would undo what somebody meant
        gc.freeze()
        gc.unfreeze()
