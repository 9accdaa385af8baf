"""Which known name a misspelt one may mean."""

from collections import Counter
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the known name that is most like `name`; empty where none has `cutoff`, of 1, in common with it."""
    likely = [one for one in known if _shared_letters(name, one) >= cutoff]
    if not likely:
        return ""
    from difflib import get_close_matches  # a start where all names are right does without it

    return next(iter(get_close_matches(name, likely, n=1, cutoff=cutoff)), "")


def _shared_letters(one: str, other: str) -> float:
    """Return how much two names have in common, in whatever order: never less than what difflib says."""
    return 2 * (Counter(one) & Counter(other)).total() / (len(one) + len(other) or 1)
