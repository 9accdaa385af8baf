"""Who is at the other end: one policy for every connection to the agent, HTTPS and MQTT alike.

The agent's certificate is self-signed and new at every start (Cert Support), so that without a CA bundle it proves
nothing. What stands in for it is narrower than "any certificate": loopback only, and the socket at the other end must
belong to root (SYSTEM on Windows) or to our own user. Knows nothing of HTTP or MQTT.
"""

from ._dial import dial
from ._owner import PeerPolicy, check_peer
from ._rows import Endpoint, is_loopback
from ._tls import failed_verification, tls_error
from ._trust import Trust

__all__ = ["Endpoint", "PeerPolicy", "Trust", "check_peer", "dial", "failed_verification", "is_loopback", "tls_error"]
