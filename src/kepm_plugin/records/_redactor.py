"""Secrets in texts: which there are, how they may be spelt, and what is shown instead."""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

T = TypeVar("T")

MASK: Final = "***"

_SHORTEST: Final = 4  # a shorter secret would turn ordinary words into stars
_SECRET_KEY: Final = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey", "privatekey"),
    *("authorization", "cookie", "credential"),
)


def attempt(call: Callable[[], T], otherwise: T) -> T:
    """Return what a call into foreign code returns, or `otherwise` where it raises."""
    try:
        return call()
    except Exception:  # noqa: BLE001  an author's __str__ may raise anything, and logging must not
        return otherwise


class Redactor:
    """Knows the secrets of the moment, and what a key that holds one looks like."""

    def __init__(self, secrets: Callable[[], Collection[str]]) -> None:
        self._secrets = secrets
        self._given: Collection[str] = frozenset[str]()  # as it was given at last
        self._values: frozenset[str] = frozenset()
        self._search: tuple[re.Pattern[str], int] | None = None  # with the length of what it finds, at most

    def refresh(self) -> None:
        """Ask for the secrets again; a settings change may have brought new ones. The last known stay on failure."""
        given = attempt(self._secrets, self._given)
        if isinstance(given, frozenset) and given == self._given:  # nothing else is sure to be what it was
            return
        values = attempt(lambda: frozenset(str(text) for text in given) - {""}, self._values)
        if values != self._values:
            spelt = {way for text in values for part in _parts(text) for way in _spelt(part)}
            self._search = (_any_of(spelt), max(map(len, spelt))) if spelt else None
            self._values = values
        self._given = given

    def text(self, text: str, limit: int) -> str:
        """Return at most `limit` characters of a text, secrets masked; a cut never leaves a part of one."""
        if text in self._values:
            return MASK
        if self._search is None:
            return text[:limit]
        pattern, longest = self._search
        if len(text) <= limit:
            return pattern.sub(MASK, text)
        # Only a window is searched. A secret that the window cuts is within its last characters, which go.
        window = pattern.sub(MASK, text[: limit + longest])
        return window[: max(0, len(window) - longest)][:limit]

    def knows(self, text: str) -> bool:
        """Whether a text is, as a whole, a secret value; also a short one."""
        return text in self._values

    @property
    def is_idle(self) -> bool:
        """Whether there are no secrets."""
        return not self._values

    def may_touch(self, texts: Collection[str]) -> bool:
        """Whether one of some texts may have to be masked; where this says no, none has. One search is for all."""
        if not self._values.isdisjoint(texts):
            return True
        return self._search is not None and self._search[0].search("\0".join(texts)) is not None


@lru_cache(maxsize=1024)
def holds_secret(key: str) -> bool:
    """Whether a field of that name holds a secret, by the look of the name."""
    plain = re.sub(r"[^a-z0-9]", "", key.casefold())
    return any(word in plain for word in _SECRET_KEY)


def _parts(secret: str) -> set[str]:
    """Return a secret and each of its lines, as far as they are long enough.

    A key of many lines seldom stays in one piece: the traceback of an exception group indents each line of a message.
    """
    return {part for part in (secret, *map(str.strip, secret.splitlines())) if len(part) >= _SHORTEST}


def _any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Return what finds the longest of some texts. They are grouped by how they begin: it is searched for often."""
    rests: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        rests.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?:{'|'.join(some)})" for first, some in rests.items()))


def _spelt(text: str) -> set[str]:
    """Return a text as it is, and as it reads inside a repr (of bytes too), a JSON text, a URL or Base64."""
    data = text.encode("utf-8", "replace")
    ways = {repr(text)[1:-1], repr(data)[2:-1], *_in_base64(data)}
    ways |= {quote(text, errors="replace"), quote(text, safe="", errors="replace"), quote_plus(text, errors="replace")}
    ways |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return ways | {text} | {way.replace("'", "\\'") for way in ways}


def _in_base64(data: bytes) -> set[str]:
    """Return what data is in the Base64 of something that holds it, as of "user:password"; it may begin at any byte."""
    ways: set[str] = set()
    for before in range(3):
        # A character is six bits: those that hold bits of a neighbour differ from case to case.
        held = slice(-(-before * 8 // 6), (before + len(data)) * 8 // 6)
        ways |= {encode(bytes(before) + data).decode()[held] for encode in (b64encode, urlsafe_b64encode)}
    return {way for way in ways if len(way) >= _SHORTEST}
