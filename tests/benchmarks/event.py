"""The payload as a type: where a framework decodes into one, all use this."""

import msgspec


class Event(msgspec.Struct):
    """One event."""

    number: int
    host: str
    path: str
    user: str
    arguments: list[str]
    elevated: bool
    seconds: float
