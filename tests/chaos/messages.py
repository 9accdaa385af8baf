"""What the producer publishes: numbered messages for each kind of handler of the chaos plugin."""

import json
from random import Random

KEYS = 8
LONGEST = 0.008
"""Seconds that a handler works at most."""

_TOPICS = {
    "Chaos/Events/plain": 0.5,
    "Chaos/Events/waiting": 0.2,
    "Chaos/Events/keyed": 0.15,
    "Chaos/Events/thread": 0.05,
    "Chaos/Commands/work": 0.1,
}


def invent(random: Random, number: int) -> tuple[str, bytes]:
    """Return topic and payload of a message; each payload is unique, and a command's correlation id is its number."""
    topic = random.choices(list(_TOPICS), list(_TOPICS.values()))[0]
    if topic.endswith("/keyed"):
        topic = f"{topic}/{random.randrange(KEYS)}"
    content: dict[str, object] = {"number": number, "pause": round(random.uniform(0, LONGEST), 5)}
    if topic.startswith("Chaos/Commands/"):
        content["correlationId"] = str(number)
    return topic, json.dumps(content).encode()


def number_in(payload: bytes) -> int:
    """Return the number of a message."""
    number: int = json.loads(payload)["number"]
    return number
