"""The framework's own knobs: settings of a plugin that begin with `kepm.`, for operators, and live.

Each is declared once, in `Knobs`; what is in force where it is not set is the plugin's attribute or the constant of the
part that it bounds. A knob is read by itself, so that a wrong one leaves the others, and the author's settings, alone.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from kepm_plugin.contract import RESERVED_SETTING_PREFIX, status_topic
from kepm_plugin.dispatch import DELIVERIES, ENTRIES, LIMIT, LIMIT_BYTES, WINDOW
from kepm_plugin.errors import SettingsError
from kepm_plugin.logpipe import RECORDS, SIZE
from kepm_plugin.outbox import LIMIT as OUTBOX_LIMIT
from kepm_plugin.outbox import MAX_AGE
from kepm_plugin.outbox import SIZE as OUTBOX_SIZE
from kepm_plugin.plugin import Plugin
from kepm_plugin.settings import Settings, fields_of, read_key, setting
from kepm_plugin.spelling import nearest
from kepm_plugin.stall import LIMIT as STEP
from kepm_plugin.store import DEFAULT

__all__ = ["COUNTERS", "DAY", "DEFAULT_LEVEL", "KEYS", "MIB", "Knobs", "Reading", "defaults", "near_miss", "read"]

Level = Literal["Trace", "Debug", "Information", "Warning", "Error", "Critical"]

DEFAULT_LEVEL: Final = "Information"
"""The log level where neither the knob nor the agent says one."""

MIB: Final = 2**20
DAY: Final = 86_400.0

_NEAR: Final = 0.75  # of 1: all keys begin alike


class Knobs(Settings, reserved=True):
    """What an operator has set; None, and at the agent also the empty text, leaves the default in force."""

    log_level: Level | None = setting(
        default=None, key="kepm.log.level", description="Least level that is logged; the agent's own by default"
    )
    log_max_records: int | None = setting(
        default=None, key="kepm.log.max_records", ge=100, le=1_000_000, description="Log records that wait in memory"
    )
    log_max_mb: int | None = setting(
        default=None, key="kepm.log.max_mb", ge=1, le=1_024, description="MiB of log records that wait in memory"
    )
    log_disk_max_records: int | None = setting(
        default=None, key="kepm.log.disk.max_records", ge=100, le=1_000_000, description="Log records kept on disk"
    )
    log_disk_max_mb: int | None = setting(
        default=None, key="kepm.log.disk.max_mb", ge=1, le=65_536, description="MiB of log records kept on disk"
    )
    heartbeat: float | None = setting(
        default=None, key="kepm.heartbeat", ge=1, le=3_600, description="Seconds between two reports on Status"
    )
    settings_interval: float | None = setting(
        default=None, key="kepm.settings.interval", ge=1, le=3_600, description="Seconds between two looks at settings"
    )
    drain: float | None = setting(
        default=None, key="kepm.drain", ge=0.5, le=300, description="Seconds that handlers have at a stop"
    )
    link_budget: float | None = setting(
        default=None, key="kepm.link.budget", ge=10, le=86_400, description="Seconds for which a lost link is restored"
    )
    journal_max_mb: int | None = setting(
        default=None, key="kepm.journal.max_mb", ge=1, le=65_536, description="MiB of messages in the journal"
    )
    journal_max_days: float | None = setting(
        default=None, key="kepm.journal.max_days", ge=0.01, le=365, description="Days that a message waits there"
    )
    deadletters_max: int | None = setting(
        default=None, key="kepm.deadletters.max", ge=1, le=100_000, description="Dead letters that are kept"
    )
    deadletters_max_mb: int | None = setting(
        default=None, key="kepm.deadletters.max_mb", ge=1, le=65_536, description="MiB of dead letters"
    )
    deadletters_max_days: float | None = setting(
        default=None, key="kepm.deadletters.max_days", ge=0.01, le=3_650, description="Days that they are kept"
    )
    outbox_max_messages: int | None = setting(
        default=None,
        key="kepm.outbox.max_messages",
        ge=100,
        le=1_000_000,
        description="Publications that wait in memory",
    )
    outbox_max_mb: int | None = setting(
        default=None, key="kepm.outbox.max_mb", ge=1, le=1_024, description="MiB of publications that wait in memory"
    )
    outbox_max_seconds: float | None = setting(
        default=None, key="kepm.outbox.max_seconds", ge=10, le=86_400, description="Seconds that they wait for the link"
    )
    outbox_disk_max_messages: int | None = setting(
        default=None, key="kepm.outbox.disk.max_messages", ge=100, le=10_000_000, description="Publications on disk"
    )
    outbox_disk_max_mb: int | None = setting(
        default=None, key="kepm.outbox.disk.max_mb", ge=1, le=65_536, description="MiB of publications on disk"
    )
    outbox_disk_max_days: float | None = setting(
        default=None,
        key="kepm.outbox.disk.max_days",
        ge=0.01,
        le=365,
        description="Days that they wait, and log records",
    )
    handler_waiting: int | None = setting(
        default=None, key="kepm.handler.waiting", ge=100, le=100_000, description="Messages in memory for each handler"
    )
    handler_waiting_mb: int | None = setting(
        default=None, key="kepm.handler.waiting_mb", ge=8, le=1_024, description="MiB of messages in memory for each"
    )
    handler_deliveries: int | None = setting(
        default=None,
        key="kepm.handler.deliveries",
        ge=1,
        le=100,
        description="Deliveries that may end with the process",
    )
    identities_max: int | None = setting(
        default=None, key="kepm.identities.max", ge=100, le=1_000_000, description="Identities that are remembered"
    )
    identities_seconds: float | None = setting(
        default=None, key="kepm.identities.seconds", ge=60, le=86_400, description="Seconds for which they are"
    )
    stall_seconds: float | None = setting(
        default=None, key="kepm.stall.seconds", ge=0.02, le=60, description="Seconds that code may block the event loop"
    )


KEYS: Final[Mapping[str, str]] = {field.name: field.key for field in fields_of(Knobs)}
"""The knobs' keys at the agent, by attribute."""

COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "log_max_records": ("logsDropped",),
    "log_max_mb": ("logsDropped",),
    "link_budget": ("budgetSpent",),
    "journal_max_mb": ("refused",),
    "journal_max_days": ("tooOld",),
    "deadletters_max": ("deadLettersDropped",),
    "deadletters_max_mb": ("deadLettersDropped",),
    "deadletters_max_days": ("deadLettersDropped",),
    "outbox_max_messages": ("notSent",),
    "outbox_max_mb": ("notSent",),
    "outbox_max_seconds": ("notSent",),
    "outbox_disk_max_messages": ("notSent",),
    "outbox_disk_max_mb": ("notSent",),
    "outbox_disk_max_days": ("notSent",),
    "handler_waiting": ("dropped", "refused"),
    "handler_waiting_mb": ("dropped", "refused"),
    "handler_deliveries": ("crashed",),
    "stall_seconds": ("stalls",),
}
"""The counters and transitions of `Status` that tell that a bound was met; of others nothing is lost."""


def defaults(plugin: type[Plugin]) -> dict[str, Any]:
    """Return what is in force where a knob is not set, by attribute; None: the plugin does not have it."""
    return {
        "log_level": DEFAULT_LEVEL,
        "log_max_records": RECORDS,
        "log_max_mb": SIZE / MIB,
        "log_disk_max_records": DEFAULT.records,
        "log_disk_max_mb": DEFAULT.record_bytes / MIB,
        "heartbeat": plugin.heartbeat,
        "settings_interval": plugin.settings_interval,
        "drain": plugin.drain,
        "link_budget": plugin.link_budget,
        "journal_max_mb": DEFAULT.journal_bytes / MIB,
        "journal_max_days": DEFAULT.journal_age / DAY,
        "deadletters_max": DEFAULT.dead_letters,
        "deadletters_max_mb": DEFAULT.dead_letter_bytes / MIB,
        "deadletters_max_days": DEFAULT.dead_letter_age / DAY,
        "outbox_max_messages": OUTBOX_LIMIT,
        "outbox_max_mb": OUTBOX_SIZE / MIB,
        "outbox_max_seconds": MAX_AGE,
        "outbox_disk_max_messages": DEFAULT.kept,
        "outbox_disk_max_mb": DEFAULT.kept_bytes / MIB,
        "outbox_disk_max_days": DEFAULT.kept_age / DAY,
        "handler_waiting": LIMIT,
        "handler_waiting_mb": LIMIT_BYTES / MIB,
        "handler_deliveries": DELIVERIES,
        "identities_max": ENTRIES,
        "identities_seconds": WINDOW,
        "stall_seconds": STEP,
    }


class Reading(Struct, frozen=True):
    """What the agent's texts say of the knobs."""

    knobs: Knobs
    refused: Mapping[str, str]
    """What is wrong, by key."""
    unknown: Mapping[str, str]
    """Keys that are no knob, with the one that may be meant, or nothing."""


def read(values: Mapping[str, str], plugin: type[Plugin], last: Knobs) -> Reading:
    """Read each knob by itself; one that breaks its rule stays as it was in `last`."""
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for name, key in KEYS.items():
        try:
            value = read_key(Knobs, values, key)
        except SettingsError as error:
            refused[key] = str(error)
            value = getattr(last, name)
        found[name] = None if value == "" else value
    if plugin.heartbeat is None and found["heartbeat"] is not None:
        refused[KEYS["heartbeat"]] = (
            f"{KEYS['heartbeat']!r} cannot switch on what the plugin is without (heartbeat = None): its manifest does "
            f"not declare {status_topic(plugin.id)}"
        )
        found["heartbeat"] = None
    known = {key.casefold() for key in KEYS.values()}
    ours = (key for key in values if key.casefold().startswith(RESERVED_SETTING_PREFIX))
    unknown = {key: near_miss(key) for key in ours if key.casefold() not in known}
    return Reading(Knobs(**found), refused, unknown)


def near_miss(key: str) -> str:
    """Return the knob that a key that is none may mean; empty where none is near."""
    return nearest(key.casefold(), KEYS.values(), cutoff=_NEAR)
