"""The agent's level words and the numbers of the logging module."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..contract import LOG_LEVELS
from ..errors import SettingsError

LEVELS: Final[Mapping[str, int]] = MappingProxyType(dict(zip(LOG_LEVELS, (5, 10, 20, 30, 40, 50), strict=True)))
"""The agent's level words with the numbers of the logging module."""

_WORDS: Final = {number: word for word, number in LEVELS.items()}


def level_number(word: str) -> int:
    """Return the logging module's number of one of the agent's level words, in any casing.

    Raises:
        SettingsError: It is no such word.
    """
    for name, number in LEVELS.items():
        if name.casefold() == word.strip().casefold():
            return number
    rule = f"one of {', '.join(LEVELS)}"
    raise SettingsError(f"the log level must be {rule}, not {word!r}", rule=rule)


def level_word(number: int) -> str:
    """Return the agent's word for a level of the logging module: the severest that is not above it."""
    return _WORDS.get(number) or next((word for word in reversed(LOG_LEVELS) if number >= LEVELS[word]), LOG_LEVELS[0])
