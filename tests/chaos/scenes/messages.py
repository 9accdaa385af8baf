"""What a source publishes: kinds of messages, each made of its number alone."""

import json
from collections.abc import Sequence
from typing import Final

KINDS: Final[dict[str, Sequence[str]]] = {
    "mixed": ("Scene/Events/plain", "Scene/Events/waiting", "Scene/Events/keyed/{}", "Scene/Commands/work"),
    "waiting": ("Scene/Events/waiting",),
    "same": ("Scene/Events/waiting",),
    "stuck": ("Scene/Events/stuck",),
    "commands": ("Scene/Commands/work",),
    "relayed": ("Scene/Events/relay",),
}
"""Topics, which take turns. `same` is byte for byte one message, whose number is 0."""

KEYS: Final = 8


def invent(kind: str, number: int, pause: int, padding: int) -> tuple[str, bytes]:
    """Return topic and payload of a message, whose handler works for `pause` microseconds.

    A command's correlation id is its number.
    """
    topics = KINDS[kind]
    topic = topics[number % len(topics)].format(number // len(topics) % KEYS)
    content: dict[str, object] = {"number": 0 if kind == "same" else number, "pause": pause / 1_000_000}
    if is_command(topic):
        content["correlationId"] = str(number)
    if padding:
        content["padding"] = "x" * padding
    return topic, json.dumps(content).encode()


def is_command(topic: str) -> bool:
    """Tell whether it is a command."""
    return "/Commands/" in topic


def is_answered(topic: str) -> bool:
    """Tell whether something is owed for a message: an answer, or that it is published again."""
    return is_command(topic) or topic.endswith("/relay")
