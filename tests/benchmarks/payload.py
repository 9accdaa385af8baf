"""What every message of the benchmarks holds: an event as a plugin may report one, 157 bytes of JSON."""

import json
from typing import Any, Final

EVENT: Final[dict[str, Any]] = {
    "number": 4711,
    "host": "web-01.example",
    "path": "/usr/bin/systemctl",
    "user": "ada",
    "arguments": ["restart", "nginx"],
    "elevated": True,
    "seconds": 0.25,
}

PAYLOAD: Final = json.dumps(EVENT).encode()

TOPIC: Final = "Bench/Events/web-01"
FILTER: Final = "Bench/Events/+"


def topics(handlers: int) -> list[str]:
    """Return the topics of so many handlers, each as long as `TOPIC`; that one itself for 0."""
    return [f"Bench/Many/t{number:07}" for number in range(handlers)] or [TOPIC]
