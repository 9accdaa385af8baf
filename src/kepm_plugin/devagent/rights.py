"""Which topics a plugin may use: the declared filters, matched by the agent's rule. No I/O.

A second opinion: this shares no code with the framework's own topics. Topics are compared with case
(MQTT 5.0, section 4.7.3).
"""

from collections.abc import Iterable
from dataclasses import dataclass

SHARED = "$share/"


def covers(declared: str, requested: str) -> bool:
    """Tell whether every topic that `requested` matches is also matched by `declared`.

    `X/+` covers `X/scan` and `X/+`; `X/scan` does not cover `X/+`. A topic name is a filter that matches itself only.
    """
    ours, theirs = declared.split("/"), requested.split("/")
    if theirs[0].startswith("$") and ours[0] in ("+", "#"):
        return False  # MQTT 5.0, section 4.7.2: a leading wildcard never reaches $-topics
    for index, level in enumerate(ours):
        if level == "#":
            return True  # also where nothing more follows: X/# matches X
        if index >= len(theirs):
            return False
        if theirs[index] == "#" or (level != "+" and level != theirs[index]):
            return False
    return len(theirs) == len(ours)


def well_formed(topic_filter: str) -> bool:
    """Tell whether a string is a topic filter (MQTT 5.0, section 4.7.1)."""
    levels = topic_filter.split("/")
    if not topic_filter or "\0" in topic_filter or len(topic_filter.encode()) > 0xFFFF:
        return False
    if any(level not in ("+", "#") and ("+" in level or "#" in level) for level in levels):
        return False
    return "#" not in levels[:-1]


@dataclass(frozen=True, slots=True)
class Rights:
    """What one plugin declared. The primary topic is part of `subscribe` whether listed or not."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()

    @classmethod
    def declared(cls, publish: Iterable[str], subscribe: Iterable[str], primary: str | None) -> "Rights":
        """Build the rights from the lists of a plugin's JSON and its `Subscription.Topic`."""
        return cls(tuple(publish), (*subscribe, *([primary] if primary else ())))

    def may_publish(self, topic: str) -> bool:
        """Tell whether a publication to `topic` is let through."""
        return any(covers(declared, topic) for declared in self.publish)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Tell whether a subscription is let through; of a shared one the filter behind the group counts."""
        wanted = topic_filter
        if wanted.startswith(SHARED):
            wanted = wanted.removeprefix(SHARED).partition("/")[2]
        return any(covers(declared, wanted) for declared in self.subscribe)
