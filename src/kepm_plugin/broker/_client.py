"""aiomqtt's client, made as the session's options say."""

import logging
import math
from typing import Any, Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ._options import BrokerAddress, SessionOptions, Version

_log = logging.getLogger("kepm_plugin.broker")

RECEIVE_MAXIMUM: Final = 512
"""Unacknowledged messages that an MQTT 5 broker may send us: as many as are read in one go."""


_OF_THE_CLIENT_ID: Final = (0x85, 0x87)
"""Client Identifier not valid, Not authorized (MQTT 5.0, section 3.2.2.2); paho makes them of 3.1.1's 2 and 5 too."""


def new_client(address: BrokerAddress, options: SessionOptions, version: Version) -> aiomqtt.Client:
    """Return a client that is not connected; its deadlines and its limits are ours."""
    will = options.will
    common: dict[str, Any] = {
        "hostname": address.host,
        "port": address.port,
        "identifier": options.client_id,
        "keepalive": options.keep_alive,
        "timeout": math.inf,
        "max_inflight_messages": 0,  # paho's limit cannot follow what CONNACK says
        "will": None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
        "logger": _log,
    }
    if version == "3.1.1":
        return aiomqtt.Client(**common, protocol=aiomqtt.ProtocolVersion.V311, clean_session=options.clean)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    if not options.clean:
        properties.SessionExpiryInterval = options.session_expiry
    return aiomqtt.Client(
        **common, protocol=aiomqtt.ProtocolVersion.V5, clean_start=options.clean, properties=properties
    )


def words(code: ReasonCode) -> str:
    """Return a reason code as text, as in "Not authorized (0x87)"."""
    return f"{code} (0x{code.value:02X})"


def remedy(code: ReasonCode) -> str:
    """Return what else to look at after CONNACK has said no, to go behind a sentence."""
    if code.value not in _OF_THE_CLIENT_ID:
        return ""
    return ". If the agent builds client ids in another way, look at the contract's client_id (docs/contract.md)"
