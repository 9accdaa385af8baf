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
            gc.enable()
