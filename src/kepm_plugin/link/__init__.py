"""The link: one owner of connecting, subscribing, proving and restoring the session with the broker.

A state machine over a `Session` port; knows no MQTT library. Time comes from anyio, so that a test's clock rules it.
"""

from ._history import History
from ._link import SUSPENDED, Link
from ._options import LinkOptions
from ._session import Connector, Deliver, Ending, Observer, Session
from ._waits import Waits, delays

__all__ = [
    "SUSPENDED",
    "Connector",
    "Deliver",
    "Ending",
    "History",
    "Link",
    "LinkOptions",
    "Observer",
    "Session",
    "Waits",
    "delays",
]
