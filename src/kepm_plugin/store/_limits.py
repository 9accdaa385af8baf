"""How large the plugin's file may grow."""

from typing import Final

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """How large the file may grow; one drain, or one dead letter, may go beyond, so that size alone loses nothing."""

    journal_bytes: int = 64 * 2**20
    journal_age: float = 7 * 86_400.0  # seconds that a message waits for its handler, or for its ticket's answer
    dead_letters: int = 1_000
    dead_letter_bytes: int = 16 * 2**20
    dead_letter_age: float = 30 * 86_400.0  # seconds
    kept: int = 100_000
    """Publications that wait until the broker has them; answers do not count."""
    kept_bytes: int = 64 * 2**20
    records: int = 25_000
    """Log records that do, besides."""
    record_bytes: int = 16 * 2**20
    kept_age: float = 7 * 86_400.0
    """Seconds after which both are too old to be sent."""


DEFAULT: Final = Limits()
