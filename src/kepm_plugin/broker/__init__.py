"""One MQTT session with the agent's broker, from TCP to DISCONNECT.

Owns aiomqtt and, below it, paho: none of their types or errors leave. Knows topics and payloads as opaque values, and
reconnects nothing; when to try again is for the caller. Each attempt has a client and a link object of its own, so
that an attempt that was given up can neither connect later nor acknowledge for its successor.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from ..errors import AgentUnreachable, BrokerRefused, LinkLost, PeerNotTrusted, UsageError
from ..peer import Trust, tls_error
from ._link import Deliver, Link
from ._options import BrokerAddress, ProtocolChoice, SessionOptions, Version
from ._wire import Wire, dial

__all__ = ["BrokerAddress", "Deliver", "Link", "ProtocolChoice", "SessionOptions", "Version", "open_session"]

_CLOSE_GRACE: Final = 2.0  # seconds for DISCONNECT to be written; a broker that reads takes milliseconds


@asynccontextmanager
async def open_session(
    address: BrokerAddress, options: SessionOptions, choice: ProtocolChoice, deliver: Deliver
) -> AsyncGenerator[Link]:
    """Yield a connected session; DISCONNECT is sent at the end, as far as the broker still listens.

    Losing the connection raises nothing by itself: watch `lost()`.

    Args:
        address: Where to connect.
        options: Who connects, and how patient it is.
        choice: Which protocol version to speak; updated after a refusal.
        deliver: Called on the event loop with all messages of one reading; it must neither raise nor wait.

    Raises:
        AgentUnreachable: Nobody listens, or CONNECT was not answered; then a LinkLost is the cause.
        BrokerRefused: CONNACK says no.
        PeerNotTrusted: Something else than the agent listens there, or the CA bundle cannot be used now.
    """
    trust = Trust(ca_bundle=options.ca_bundle, peer=options.peer)
    try:
        tls = trust.context(address.host)
    except UsageError as error:
        # It was well at the start: somebody is just replacing it, so the next attempt may work.
        raise PeerNotTrusted(str(error)) from error
    try:
        link = await _connect(address, options, choice.version, tls, trust, deliver)
    except BrokerRefused as refusal:
        if not choice.refused(refusal):
            raise
        link = await _connect(address, options, choice.version, tls, trust, deliver)
    try:
        yield link
    finally:
        with anyio.move_on_after(_CLOSE_GRACE, shield=True):
            await link.leave()
        link.close("this side closed the connection")


async def _connect(
    address: BrokerAddress,
    options: SessionOptions,
    version: Version,
    tls: ssl.SSLContext,
    trust: Trust,
    deliver: Deliver,
) -> Link:
    broker = f"the broker at {address.host}:{address.port}"
    link: Link | None = None
    connected = False
    with anyio.move_on_after(options.connect_timeout):
        try:
            wire = Wire(await dial(address.host, address.port, tls, trust))
            link = Link(wire, address, options, version, deliver)
            await link.connect()
            connected = True
            return link
        except OSError as error:
            if (failed := tls_error(broker, error)) is not None:
                raise failed from None
            raise AgentUnreachable(
                f"{broker} cannot be reached: {error.strerror or error}; is the agent running, and is this its "
                "broker.host and broker.port?"
            ) from None
        except LinkLost as loss:
            raise AgentUnreachable(
                f"{broker} did not answer CONNECT ({loss}); it accepts only processes that the agent launched, with "
                f"the client id of their plugin (here {options.client_id!r}, made by the contract's client_id)"
            ) from loss
        finally:
            if link is not None and not connected:
                link.close("the attempt was given up")
    said = "does not finish the TLS handshake" if link is None else "does not answer CONNECT"
    raise AgentUnreachable(f"{broker} {said}: gave up after {options.connect_timeout:g} s; is this the agent's broker?")
