"""`Secret`: a text that shows itself only to those who ask for it."""

from collections.abc import Iterable
from typing import Any, Final, NoReturn, final

MASK: Final = "***"
"""Stands where a secret was."""

_LINE: Final = 4  # characters: a shorter line of a secret, such as a brace, is no secret


@final
class Secret:
    """A text whose value is in no `repr`, `str`, format, log line or error; `reveal()` returns it.

    It is no `str`, on purpose: joining, encoding as JSON, or publishing it is a TypeError, and not a leak. It has a
    length, is false where it is empty, can be a key, and can be copied and pickled; a pickle holds the value. Two
    secrets are compared in a time that does not tell where they differ. A secret never equals a `str`.

    Raises:
        TypeError: It is made of something other than a `str`.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str, /) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a Secret is made of a str, not of {type(text).__name__}")
        object.__setattr__(self, "_text", str(text))

    def reveal(self) -> str:
        """Return the value."""
        return self._text

    def __eq__(self, other: object) -> bool:
        from hmac import compare_digest  # Slow to import, and most plugins never compare secrets.

        if not isinstance(other, Secret):
            return NotImplemented
        ours, theirs = (text.encode("utf-8", "surrogatepass") for text in (self._text, other._text))
        return compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __len__(self) -> int:
        return len(self._text)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str, /) -> str:
        return format(MASK, spec)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, _memo: dict[int, Any], /) -> "Secret":
        return self

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return Secret, (self._text,)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change; make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change; make another one")


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets, also as `repr` spells them, and without the lines of one that has many."""
    spelt = {form for secret in secrets for form in (secret, repr(secret)[1:-1], *_lines(secret))}
    for form in sorted(spelt - {""}, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _lines(secret: str) -> list[str]:
    return [line for line in secret.splitlines() if len(line) >= _LINE]
