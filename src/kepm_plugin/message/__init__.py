"""What travels: the values that pass between the parts, and the payloads inside them.

Owns decoding and encoding: from raw bytes to the type that a handler's annotation asks for, and back. Knows nothing
of sessions, handlers or files.
"""

from ._payload import (
    Decode,
    Decoded,
    command_decoder,
    converter,
    correlation_of,
    decode_json,
    decoder,
    encode,
    encode_json,
    encoder,
    fitting,
    indented,
)
from ._values import EMPTY, Caller, Message, Publication, Received

__all__ = [
    "EMPTY",
    "Caller",
    "Decode",
    "Decoded",
    "Message",
    "Publication",
    "Received",
    "command_decoder",
    "converter",
    "correlation_of",
    "decode_json",
    "decoder",
    "encode",
    "encode_json",
    "encoder",
    "fitting",
    "indented",
]
