"""Puts the parts together and gives them one lifetime: from reading the settings to the exit code."""

from ._deployed import warn_of_denials
from ._process import RunOptions, run
from ._serve import Serving
from ._surroundings import OpenSession, Outcome, Surroundings

__all__ = ["OpenSession", "Outcome", "RunOptions", "Serving", "Surroundings", "run", "warn_of_denials"]
