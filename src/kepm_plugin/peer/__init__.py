"""Who is at the other end: one policy for every connection to the agent, HTTPS and MQTT alike.

The agent's certificate is self-signed and new at every start (Cert Support), so that without a CA bundle it proves
nothing. What stands in for it is narrower than "any certificate": loopback only, and the socket at the other end must
belong to root (SYSTEM on Windows) or to our own user. Knows nothing of HTTP or MQTT.
"""

import ssl
from pathlib import Path

from msgspec import Struct

from ._owner import PeerPolicy, check_peer, known_peer
from ._rows import Endpoint, is_loopback
from ._tls import failed_verification, tls_context, tls_error

__all__ = ["Endpoint", "PeerPolicy", "Trust", "check_peer", "failed_verification", "is_loopback", "tls_error"]


class Trust(Struct, frozen=True, kw_only=True):
    """What the other end of a connection must show before anything is sent to it.

    Attributes:
        ca_bundle: Certificates that verify the agent; then its certificate is the proof, not its socket's owner.
        peer: What to do where nobody can tell whose socket it is.
    """

    ca_bundle: Path | None = None
    peer: PeerPolicy = "warn"

    def context(self, host: str) -> ssl.SSLContext:
        """Return the TLS settings for one connection to `host`; the CA bundle is read anew each time.

        Raises:
            PeerNotTrusted: Neither a bundle nor a loopback host.
            UsageError: The bundle cannot be used, or others could replace it.
        """
        return tls_context(host, self.ca_bundle)

    def known(self, local: Endpoint, remote: Endpoint, *, answered: bool) -> bool:
        """Tell, without waiting, that `check` would refuse nothing; False says nothing."""
        return self.ca_bundle is not None or known_peer(local, remote, answered=answered)

    def check(self, local: Endpoint, remote: Endpoint, *, answered: bool) -> None:
        """Refuse a connection by who holds its other end; a bundle makes that unnecessary.

        May read large tables: call it in a thread, after TCP is up and again after the TLS handshake. Only then has a
        process taken the connection for certain (`answered`); before it, those who listen there are looked at.

        Raises:
            PeerNotTrusted: It is not on loopback, somebody else's, or unknown under "require".
        """
        if self.ca_bundle is None:
            check_peer(local, remote, self.peer, answered=answered)
