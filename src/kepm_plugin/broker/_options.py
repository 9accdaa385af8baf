"""What is asked of a session: where, as whom, how patiently, and in which version of MQTT."""

from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from ..contract import DEFAULT_BROKER_HOST, DEFAULT_BROKER_PORT
from ..errors import BrokerRefused
from ..message import Publication
from ..peer import PeerPolicy

Version = Literal["5", "3.1.1"]
Ending = Literal["taken over", "closed", "reset", "broken"]
"""How a connection went: the broker said that another client has the client id, closed it without a word, or so
abruptly that it left something unread; or in any other way."""

_UNSUPPORTED_VERSION: Final = 0x84  # paho turns the 0x01 of a 3.1.1 broker into it too


class BrokerAddress(Struct, frozen=True, kw_only=True):
    """Where the broker listens, as the agent's settings say."""

    host: str = DEFAULT_BROKER_HOST
    port: int = DEFAULT_BROKER_PORT


class SessionOptions(Struct, frozen=True, kw_only=True):
    """Who connects, and how patient it is."""

    client_id: str
    clean: bool = True  # False: the broker keeps subscriptions and what comes at QoS >= 1 while we are away
    keep_alive: int = 75  # seconds; a ping goes out up to 5 s later, so a loop may be blocked for 30 s (1.5 x 75 - 80)
    connect_timeout: float = 5.0  # seconds until CONNACK, TLS included
    session_expiry: int = 86_400  # seconds that a kept session outlives the connection, MQTT 5 only
    will: Publication | None = None  # published by the broker when the connection ends without DISCONNECT
    ca_bundle: Path | None = None  # verifies the broker's certificate; then that is the proof, not the socket's owner
    peer: PeerPolicy = "warn"  # what to do where nobody can tell who listens
    ack_timeout: float = 5.0  # seconds for SUBACK and UNSUBACK, after which the connection counts as dead


class ProtocolChoice:
    """Which MQTT to speak: 5, until a broker says outright that it does not. Kept by the caller for the whole run.

    A connection that is closed without a word is no such answer: the agent may just be starting.
    """

    def __init__(self) -> None:
        self.version: Version = "5"

    def refused(self, refusal: BrokerRefused) -> bool:
        """Note a refusal; True where it was about the version, so that 3.1.1 should be tried at once."""
        if self.version == "3.1.1" or refusal.code != _UNSUPPORTED_VERSION:
            return False
        self.version = "3.1.1"
        return True
