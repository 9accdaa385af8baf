"""Importing without the garbage collector, which finds nothing then: what a module defines stays."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def importing(*, frozen: bool = False) -> Generator[None]:
    """Import inside: else the collector would look, ten times a start, through all that has been imported so far.

    Nor does it make up for that afterwards: what is there at the end counts as old, as if it had outlived collections.
    Freezing and unfreezing moves whole lists, and looks at nothing.

    Args:
        frozen: No collection looks through it at all, however long the process lives.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if frozen:
            gc.freeze()
        elif collecting and not gc.get_freeze_count():  # else unfreezing would undo what somebody meant
            gc.freeze()
            gc.unfreeze()
        if collecting:
            gc.enable()
