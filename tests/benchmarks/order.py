"""What a measured process is told, in its environment: its command line is that of what it measures."""

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

VARIABLE: Final = "KEPM_BENCHMARK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do, and where.

    Attributes:
        host: Of the broker.
        port: Of the broker, with TLS or without.
        tls: Whether that port speaks TLS.
        qos: Of the subscription, and of what is published.
        burst: Messages that come at once.
        warm_up: Calls that come before those which count.
        count: Calls that count.
        journal: Whether ours keeps a journal.
        handlers: How many ours has, each with a topic of its own; 0: one, with a topic that has a level to fill in.
        copy: Which one this is of several that run at once, from 1 on; 0: it is alone.
        api: The settings API's address.
        file: Where a peer of the log writes.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    qos: int = 0
    burst: int = 1
    warm_up: int = 0
    count: int = 0
    journal: bool = False
    handlers: int = 0
    copy: int = 0
    api: str = ""
    file: str = ""

    @classmethod
    def read(cls) -> "Order":
        """Return what this process was told; nothing in particular where it was told nothing."""
        return cls(**json.loads(os.environ.get(VARIABLE, "{}")))

    def environment(self) -> Mapping[str, str]:
        """Return the variable that tells it."""
        return {VARIABLE: json.dumps(asdict(self))}

    def context(self) -> ssl.SSLContext | None:
        """Return what a peer connects with: encrypted, and nothing verified, which costs the least."""
        return unverified() if self.tls else None


def unverified() -> ssl.SSLContext:
    """Return a client's context that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
