"""Publications on their way out: in order, pipelined up to the broker's limit, kept while the link is down.

In memory and bounded, or in the `store`: there lie answers, written in the commit that ends their message, and with
`outbox = "disk"` what the plugin publishes at QoS 1 and 2, and the log records of an outage. What lies there is
forgotten when the broker has acknowledged it; what waits too long is dropped and counted.
"""

from ._disk import WINDOW, WINDOW_BYTES
from ._entry import Sends
from ._outbox import LIMIT, PUT_TIMEOUT, SIZE, Outbox
from ._pipeline import MAX_AGE

__all__ = ["LIMIT", "MAX_AGE", "PUT_TIMEOUT", "SIZE", "WINDOW", "WINDOW_BYTES", "Outbox", "Sends"]
