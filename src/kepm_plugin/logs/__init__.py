"""structlog and stdlib logging, both ending in one bounded pipe of KeeperLogger records. Only importer of structlog.

A log call never blocks and never raises, whatever it is given. How records leave the pipe is not known here.

No feedback: what carries records out (`TRANSPORT`) may log itself. Below Warning its records stay on this machine, on
the fallback stream, and only at level Debug or Trace; from Warning on they pass at a bounded rate. A record that is
logged while another one is being made, by an author's `__repr__` for example, is made without calling such code again.
"""

from kepm_plugin.logpipe import LogPipe

from ._logging import LogControl, logging_to
from ._transport import TRANSPORT

__all__ = ["TRANSPORT", "LogControl", "LogPipe", "logging_to"]
