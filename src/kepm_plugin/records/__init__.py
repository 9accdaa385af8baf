"""What one log record is: bounded, free of secrets, and made of whatever an author's code handed in.

Pure but for the foreign code behind `str` and `repr`, which may raise, lie or log; none of that gets out. Knows nothing
of loggers, threads or where a record goes.
"""

from ._flat import FlatEvent, FlatRecords
from ._levels import LEVELS, level_number, level_word
from ._record import Event, Record
from ._redactor import Redactor, attempt
from ._telling import MAX_RECORD, recorded

__all__ = [
    "LEVELS",
    "MAX_RECORD",
    "Event",
    "FlatEvent",
    "FlatRecords",
    "Record",
    "Redactor",
    "attempt",
    "level_number",
    "level_word",
    "recorded",
]
