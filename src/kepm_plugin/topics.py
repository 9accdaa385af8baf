"""MQTT topics: declared patterns, filters, and the way from a topic to its handler.

Pure rules over strings (MQTT 5.0, section 4.7). A *pattern* is what an author writes (`Events/{host}`), a *filter* is
what is subscribed (`MyWorker/Events/+`), a *topic* is what a message carries (`MyWorker/Events/web1`).
"""

import re
from collections.abc import Iterable, Mapping
from itertools import chain, count, zip_longest
from typing import Final, Generic, TypeVar

from msgspec import Struct

from .errors import BadTopic

V = TypeVar("V")

MAX_BYTES = 65_535
"""Length of a topic in UTF-8 (MQTT 5.0, section 1.5.4)."""

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")


class Level(Struct, frozen=True):
    """One level of a pattern: literal text, or a parameter that stands for one level or for the rest."""

    text: str
    """The literal, or the parameter's name."""
    wildcard: str = ""
    """`""` for a literal, `+` for `{name}`, `#` for `{name:path}`."""


class Pattern(Struct, frozen=True):
    """A declared topic. Relative patterns stand below the plugin's id, absolute ones begin with `/`."""

    text: str
    absolute: bool
    levels: tuple[Level, ...]

    @staticmethod
    def parse(text: str) -> "Pattern":
        """Read a declaration; `""` is the plugin's primary topic.

        Raises:
            BadTopic: It breaks a rule of MQTT or of the namespace; the message has the corrected spelling.
        """
        if not isinstance(text, str):
            raise BadTopic(repr(text), "a topic is a text; write it in parentheses, as in topic('Events/{host}')")
        absolute = text.startswith("/")
        body = text[1:] if absolute else text
        if absolute and not text.strip("/"):
            raise BadTopic(
                text, "slashes alone name no topic; write the absolute topic after one, as in '/KeeperPolicy'"
            )
        check_text(text)
        parts = body.split("/") if body else []
        levels = tuple(_level(text, part, last=index == len(parts) - 1) for index, part in enumerate(parts))
        # `//x` is the absolute topic `/x`, whose first level is empty; every other empty level is a slip.
        for index, part in enumerate(parts):
            if not part and not (absolute and index == 0 and len(parts) > 1):
                raise BadTopic(text, f"level {index + 1} is empty; write {_without_empty(text)!r}")
        names = [level.text for level in levels if level.wildcard]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise BadTopic(text, f"the parameter {twice[0]!r} is used twice; give each level its own name")
        if absolute and parts[0].lower() in {"$share", "$queue"}:
            raise BadTopic(text, "shared subscriptions are not for plugins; leave out the '$share' level")
        return Pattern(text, absolute, levels)

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(level.text for level in self.levels if level.wildcard)

    def check_owner(self, plugin_id: str) -> None:
        """Refuse the plugin's own id as first level.

        Raises:
            BadTopic: With the relative spelling.
        """
        if self.levels and not self.levels[0].wildcard and self.levels[0].text.casefold() == plugin_id.casefold():
            rest = self.text.lstrip("/").partition("/")[2]
            raise BadTopic(self.text, f"topics are relative to the plugin's id, {plugin_id!r}; write {rest!r}")

    def filter(self, plugin_id: str) -> str:
        """Return the MQTT filter, `+` and `#` for the parameters."""
        own = [level.wildcard or level.text for level in self.levels]
        return "/".join(own if self.absolute else [plugin_id, *own])

    def topic(self, plugin_id: str, values: Mapping[str, str]) -> str:
        """Return the concrete topic with `values` in place of the parameters.

        Raises:
            BadTopic: A value is missing, superfluous, empty, or holds `/`, `+`, `#` or NUL.
        """
        unknown = set(values) - set(self.params)
        if unknown:
            known = ", ".join(self.params) or "none"
            raise BadTopic(self.text, f"has no parameter {', '.join(sorted(unknown))}; its parameters: {known}")
        own = [_fill(self, level, values) if level.wildcard else level.text for level in self.levels]
        topic = "/".join(own if self.absolute else [plugin_id, *own])
        check_text(topic)
        return topic

    def values(self, plugin_id: str, topic: str) -> dict[str, str]:
        """Return what the parameters stand for in a topic that matches."""
        parts = topic.split("/")
        skip = 0 if self.absolute else plugin_id.count("/") + 1
        found: dict[str, str] = {}
        for index, level in enumerate(self.levels, skip):
            if level.wildcard == "+":
                found[level.text] = parts[index]
            elif level.wildcard == "#":
                found[level.text] = "/".join(parts[index:])
        return found


def check_text(topic: str) -> None:
    """Refuse what no MQTT topic may hold.

    Raises:
        BadTopic: Control characters, lone surrogates, or more than 65,535 bytes.
    """
    # What is printable has none; to look at each character would be a third of what publishing takes.
    if not topic.isprintable() and any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in topic):
        raise BadTopic(topic, "control characters are not allowed in topics; remove them")
    try:
        size = len(topic.encode())
    except UnicodeEncodeError:
        raise BadTopic(topic, "it is not valid Unicode; remove the lone surrogate") from None
    if size > MAX_BYTES:
        raise BadTopic(topic[:40] + "…", f"is {size} bytes long, MQTT allows {MAX_BYTES}; shorten it")


def check_topic(topic: str) -> None:
    """Refuse a string that cannot be published to.

    Raises:
        BadTopic: It is empty, or holds a wildcard or a character that MQTT forbids.
    """
    if not topic:
        raise BadTopic(topic, "a topic cannot be empty; name at least one level")
    if "+" in topic or "#" in topic:
        raise BadTopic(topic, "'+' and '#' are for subscriptions; publish to a concrete topic")
    check_text(topic)


def check_filter(topic_filter: str) -> None:
    """Refuse a string that is no MQTT filter (MQTT 5.0, section 4.7.1).

    Raises:
        BadTopic: `+` or `#` shares a level with text, `#` is not last, or the text is not allowed.
    """
    if not topic_filter:
        raise BadTopic(topic_filter, "a filter cannot be empty; name at least one level")
    check_text(topic_filter)
    levels = topic_filter.split("/")
    for index, level in enumerate(levels):
        if ("+" in level or "#" in level) and len(level) > 1:
            raise BadTopic(topic_filter, f"a wildcard stands alone in its level, unlike {level!r}")
        if level == "#" and index != len(levels) - 1:
            raise BadTopic(topic_filter, "'#' is allowed in the last level only")


def matches(topic_filter: str, topic: str) -> bool:
    """Tell whether a topic falls under a filter; `a/#` includes `a`, and no wildcard in the first level reaches `$`."""
    return covers(topic_filter, topic)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every topic of filter `narrow` falls under filter `wide`, level by level.

    Of the two spellings of "everything", `#` covers `+/#` and not the other way round.
    """
    ours, theirs = wide.split("/"), narrow.split("/")
    if theirs[0].startswith("$") and ours[0] in {"+", "#"}:
        return False
    for index, level in enumerate(ours):
        if level == "#":
            return True
        if index >= len(theirs):
            return False
        other = theirs[index]
        if other == "#" or (level != other and level != "+"):
            return False
    return len(ours) == len(theirs)


def overlap(first: str, second: str) -> bool:
    """Tell whether some topic falls under both filters."""
    ours, theirs = first.split("/"), second.split("/")
    for one, other in ((ours[0], theirs[0]), (theirs[0], ours[0])):
        if one.startswith("$") and other in {"+", "#"}:
            return False
    for one, other in zip_longest(ours, theirs):
        if "#" in (one, other):
            return True
        if one is None or other is None or (one != other and "+" not in (one, other)):
            return False
    return True


def widest(filters: Iterable[str]) -> list[str]:
    """Return, sorted, the filters that no other one covers: all that must be subscribed."""
    unique = sorted(set(filters))
    wide = [one for one in unique if has_wildcard(one)]  # the others cover nothing but themselves
    return [one for one in unique if not any(other != one and covers(other, one) for other in wide)]


def has_wildcard(topic_filter: str) -> bool:
    """Tell whether a filter stands for more than one topic."""
    return "+" in topic_filter or "#" in topic_filter


class _Node(Generic[V]):
    __slots__ = ("any", "here", "literal", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node[V]] = {}
        self.any: _Node[V] | None = None
        self.here: V | None = None
        self.rest: V | None = None


KNOWN: Final = 5_000
"""Topics of which a router remembers what it has found; it then begins anew."""

KNOWN_LENGTH: Final = 200
"""Characters of a topic that it remembers, at most."""


class Router(Generic[V]):
    """From a topic to the one value whose filter is the most specific: literal before `+` before `#`.

    The time of a look-up depends on the topic's levels, not on the number of filters.
    """

    def __init__(self, routes: Iterable[tuple[str, V]]) -> None:
        self._root: _Node[V] = _Node()
        self._known: dict[str, V] = {}
        """Topics that were looked up lately."""
        for topic_filter, value in routes:
            self._add(topic_filter.split("/"), value)

    def _add(self, levels: list[str], value: V) -> None:
        node = self._root
        for level in levels:
            if level == "#":
                node.rest = value
                return
            if level == "+":
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literal.setdefault(level, _Node())
        node.here = value

    def find(self, topic: str) -> V | None:
        """Return the value for a topic, None where no filter matches."""
        if (found := self._known.get(topic)) is not None:
            return found
        levels = topic.split("/")
        found = _find(self._root, levels, 0, hidden=topic.startswith("$"))
        if found is not None and len(topic) <= KNOWN_LENGTH:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[topic] = found
        return found


def _find(node: _Node[V], levels: list[str], index: int, *, hidden: bool) -> V | None:
    if index == len(levels):
        return node.here if node.here is not None else node.rest
    found: V | None = None
    below = node.literal.get(levels[index])
    if below is not None:
        found = _find(below, levels, index + 1, hidden=False)
    if hidden:
        return found
    if found is None and node.any is not None:
        found = _find(node.any, levels, index + 1, hidden=False)
    return found if found is not None else node.rest


def _level(text: str, part: str, *, last: bool) -> Level:
    if part in {"+", "#"}:
        raise BadTopic(text, f"{part!r} is for filters, a declaration names its levels; {_named(text)}")
    if "+" in part or "#" in part:
        raise BadTopic(text, f"the level {part!r} holds '+' or '#', which are wildcards; leave them out")
    parameter = _PARAMETER.fullmatch(part)
    if parameter is None:
        if "{" in part or "}" in part:
            raise BadTopic(text, _malformed(part))
        return Level(part)
    if parameter[2] and not last:
        raise BadTopic(text, f"{part!r} stands for the rest and must be the last level; write '{{{parameter[1]}}}'")
    return Level(parameter[1], "#" if parameter[2] else "+")


def _malformed(part: str) -> str:
    parameter = re.fullmatch(r"\{([^{}:]*)(:[^{}]*)?\}", part)
    if parameter is None:
        return f"a parameter is a whole level, unlike in {part!r}; put it between slashes"
    name = parameter[1]
    if name.isidentifier() and name.isascii():
        return f"there is no kind {parameter[2]!r} of parameter, only ':path'; write '{{{name}}}'"
    better = re.sub(r"[^A-Za-z0-9_]+", "_", name) or "name"
    better = f"_{better}" if better[0].isdigit() else better
    return f"a parameter's name has only letters, digits and '_', unlike {part!r}; write '{{{better}}}'"


def _named(text: str) -> str:
    """Return the remedy for a declaration with wildcards: its corrected spelling, where there is one."""
    parts = text.split("/")
    names = chain(["name"] if parts.count("+") == 1 else [], (f"level{number}" for number in count(1)))
    free = (f"{{{name}}}" for name in names if f"{{{name}" not in text)
    better = "/".join(next(free) if part == "+" else "{rest:path}" if part == "#" else part for part in parts)
    try:
        Pattern.parse(better)
    except BadTopic:
        return "write '{name}' for '+', and '{name:path}' for a '#' in the last level"
    return f"write {better!r}"


def _without_empty(text: str) -> str:
    lead = text[: len(text) - len(text.lstrip("/"))][:2]
    return lead + "/".join(part for part in text.split("/") if part)


def _fill(pattern: Pattern, level: Level, values: Mapping[str, str]) -> str:
    if level.text not in values:
        raise BadTopic(pattern.text, f'needs a value for {level.text!r}; pass {level.text}="…"')
    value = values[level.text]
    if not isinstance(value, str):
        raise BadTopic(
            repr(value), f"cannot stand for {level.text!r} of {pattern.text!r}: a level is a text; use str()"
        )
    parts = value.split("/") if level.wildcard == "#" else [value]
    for part in parts:
        if not part or any(char in part for char in "/+#\0"):
            raise BadTopic(
                value,
                f"cannot stand for {level.text!r} of {pattern.text!r}: a level is not empty and has no '/', '+', '#'",
            )
    return value
