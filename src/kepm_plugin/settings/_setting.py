"""`setting()`: what an author says of one setting."""

from collections.abc import Iterable
from dataclasses import field
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar, overload

from kepm_plugin.fields import MISSING, OPTIONS

T = TypeVar("T")

Limit: TypeAlias = float | Decimal | timedelta | date | time | str
"""A bound of a value: of its type, or as its text (`"1s"`, `"64MiB"`)."""


@overload
def setting(
    *,
    default: T,
    key: str | None = None,
    aliases: Iterable[str] = (),
    description: str = "",
    secret: bool = False,
    ge: Limit | None = None,
    gt: Limit | None = None,
    le: Limit | None = None,
    lt: Limit | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
@overload
def setting(
    *,
    key: str | None = None,
    aliases: Iterable[str] = (),
    description: str = "",
    secret: bool = False,
    ge: Limit | None = None,
    gt: Limit | None = None,
    le: Limit | None = None,
    lt: Limit | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> Any: ...
def setting(*, default: object = MISSING, **options: Any) -> Any:
    """Declare one setting in the body of a `Settings` class.

    Args:
        default: The value where the agent has none; without it the setting must be set. A nested class has the
            defaults of its own settings.
        key: The setting's name at the agent; the attribute's name unless given. Settings of a nested class have dotted
            keys that begin with it.
        aliases: Keys that it had before, the newest first. They are read where the key has no value, or has the
            default: the plugin's file gives a new key its default, which must not hide what is stored under the old
            one. Nothing is written to them in a manifest.
        description: For the operator, in one line.
        secret: Masked in `repr`, errors and logs, and never written to a manifest. A type with `Secret` needs no such
            word.
        ge: Numbers, durations, sizes, dates and times: the least value. Durations and sizes also as text, as in "1s".
        gt: As for `ge`: the value must be above.
        le: As for `ge`: the greatest value.
        lt: As for `ge`: the value must be below.
        min_length: Text, bytes and collections: the least length.
        max_length: Text, bytes and collections: the greatest length.
        pattern: Text only: a regular expression that the whole value must match (`re.fullmatch`).
    """
    options["default"] = default
    # A factory, because a dataclass refuses lists; every snapshot gets a copy of its own in __post_init__.
    given: dict[str, Any] = {} if default is MISSING else {"default_factory": lambda: default}
    return field(**given, metadata={OPTIONS: options})
