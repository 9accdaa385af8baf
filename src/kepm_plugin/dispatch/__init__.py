"""From a received message to one handler call: lanes, order, deadlines, answers, dead letters, acknowledgements."""

from ._call import Failure, attempted, guarded
from ._counters import Counters
from ._dispatcher import Dispatcher

__all__ = ["Counters", "Dispatcher", "Failure", "attempted", "guarded"]
