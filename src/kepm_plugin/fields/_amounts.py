"""Decimal numbers as text times a unit, in whole numbers and exactly."""

from typing import Final

NUMBER: Final = r"\d+(?:\.\d*)?|\.\d+"
"""A regular expression; to be used with `re.ASCII`, for there are digits that nobody means."""


def product(number: str, unit: int, exponent: str | None = None) -> tuple[int, bool]:
    """Return number times unit, rounded to a whole number, a half upwards, and whether anything was lost.

    Args:
        number: What `NUMBER` matches.
        unit: What it counts.
        exponent: `e` with a power of ten, as .NET writes a large number; of few digits.
    """
    whole, _, fraction = number.partition(".")
    digits, power = int(whole + fraction), int(exponent[1:]) - len(fraction) if exponent else -len(fraction)
    if power >= 0:
        return digits * unit * 10**power, False
    scale = 10**-power
    return (digits * unit * 2 + scale) // (2 * scale), digits * unit % scale != 0
