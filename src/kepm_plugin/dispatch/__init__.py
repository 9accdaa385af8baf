"""From a received message to one handler call: lanes, order, deadlines, answers, dead letters, acknowledgements."""

from ._call import Failure, attempted, guarded
from ._counters import Counters
from ._delivery import DELIVERIES
from ._dispatcher import Dispatcher
from ._lane import LIMIT, LIMIT_BYTES
from ._window import ENTRIES, WINDOW

__all__ = [
    "DELIVERIES",
    "ENTRIES",
    "LIMIT",
    "LIMIT_BYTES",
    "WINDOW",
    "Counters",
    "Dispatcher",
    "Failure",
    "attempted",
    "guarded",
]
