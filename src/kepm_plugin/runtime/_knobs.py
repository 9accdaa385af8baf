"""The framework's knobs, put into the parts that they tune: at the start, and whenever an operator turns one."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio

from kepm_plugin.contract import LOG_LEVELS, LOGGING_LEVEL_KEY, RESERVED_SETTING_PREFIX, SYSTEM_PLUGIN
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.errors import AgentError
from kepm_plugin.knobs import DAY, DEFAULT_LEVEL, KEYS, MIB, Knobs, defaults, read
from kepm_plugin.link import Link
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Plugin
from kepm_plugin.store import Limits, Store

from ._status import Status
from ._surroundings import Surroundings

log = logging.getLogger("kepm_plugin.runtime")

_IN_MEMORY: Final = {"outbox_max_messages", "outbox_max_mb", "outbox_max_seconds"}
_ON_DISK: Final = {
    *("journal_max_mb", "journal_max_days", "deadletters_max", "deadletters_max_mb", "deadletters_max_days"),
    *("outbox_disk_max_messages", "outbox_disk_max_mb", "outbox_disk_max_days"),
    *("log_disk_max_records", "log_disk_max_mb"),
}
_VERBOSITY: Final = {word.casefold(): word for word in LOG_LEVELS}


class KnobControl:
    """Takes the agent's texts, and tells each part what its bounds are now.

    A part keeps the bounds that it was made with until a knob of its own is set; then, and when the knob is taken away,
    it is told.

    Args:
        plugin: Whose attributes are defaults.
        around: With the agent, the logs and the stall guard.
        outbox: One of the parts.
        status: Another one; it says, too, what was refused.
        room: Called when there may be room for what waits.
    """

    def __init__(
        self, plugin: type[Plugin], around: Surroundings, outbox: Outbox, status: Status, room: Callable[[], object]
    ) -> None:
        self._plugin, self._around, self._outbox, self._status, self._room = plugin, around, outbox, status, room
        self._defaults = defaults(plugin)
        self._texts: dict[str, str] = {}
        self._listed: set[str] = set()
        self._agents_level = DEFAULT_LEVEL
        self._agents_word = ""
        self._reconnected = anyio.Event()
        self._store: Store | None = None
        self._dispatcher: Dispatcher | None = None
        self._link: Link | None = None
        self.chosen = Knobs()
        """What the operator has set."""
        self.refused: Mapping[str, str] = {}
        """What is wrong with what the operator has set, by key."""

    # --- what others ask for ------------------------------------------------------------------------------------------

    @property
    def drain(self) -> float:
        """Seconds that handlers have at a stop."""
        return float(self._at("drain"))

    @property
    def settings_interval(self) -> float:
        """Seconds between two looks at the settings."""
        return float(self._at("settings_interval"))

    @property
    def limits(self) -> Limits:
        """How large the plugin's file may grow."""
        return Limits(
            journal_bytes=self._bytes("journal_max_mb"),
            journal_age=self._at("journal_max_days") * DAY,
            dead_letters=self._at("deadletters_max"),
            dead_letter_bytes=self._bytes("deadletters_max_mb"),
            dead_letter_age=self._at("deadletters_max_days") * DAY,
            kept=self._at("outbox_disk_max_messages"),
            kept_bytes=self._bytes("outbox_disk_max_mb"),
            records=self._at("log_disk_max_records"),
            record_bytes=self._bytes("log_disk_max_mb"),
            kept_age=self._at("outbox_disk_max_days") * DAY,
        )

    def _at(self, name: str) -> Any:
        chosen = getattr(self.chosen, name)
        return self._defaults[name] if chosen is None else chosen

    def _bytes(self, name: str) -> int:
        return int(self._at(name) * MIB)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def seen(self, values: Mapping[str, str]) -> None:
        """Take the plugin's settings as the agent has them; what is no knob is nothing here."""
        texts = {key: text for key, text in values.items() if key.casefold().startswith(RESERVED_SETTING_PREFIX)}
        if texts == self._texts:
            return
        self._texts = texts
        reading = read(texts, self._plugin, self.chosen)
        self._complain(reading.refused)
        for key in sorted(reading.unknown.keys() - self._listed):
            meant = {"meant": reading.unknown[key]} if reading.unknown[key] else {}
            log.warning("knob.unknown", extra={"key": key, **meant})
        self._listed |= reading.unknown.keys()
        self._turn(reading.knobs)

    def _complain(self, refused: Mapping[str, str]) -> None:
        for key, reason in sorted(refused.items() - self.refused.items()):
            log.error("knob.refused", extra={"key": key, "reason": reason})
        self.refused = refused
        told = f"what was in force stays: {'; '.join(refused.values())}" if refused else None
        self._status.trouble("knobs", told)

    def _turn(self, knobs: Knobs) -> None:
        before, self.chosen = self.chosen, knobs
        changed = {name for name in KEYS if getattr(before, name) != getattr(knobs, name)}
        if not changed:
            return
        # Told under the more talkative of two levels.
        if "log_level" in changed:
            self._set_level(most=self._around.logs.level)
        log.info("knobs.changed", extra={KEYS[name]: self._at(name) for name in sorted(changed)})
        self._set_level()
        self._apply(changed)

    def agent(self, values: Mapping[str, str]) -> None:
        """Take the agent's own settings: its log level is the plugin's, where the knob is not set."""
        word = values.get(LOGGING_LEVEL_KEY, "").strip()
        if word and word.casefold() not in _VERBOSITY and word != self._agents_word:
            log.warning("log.level_unknown", extra={"key": LOGGING_LEVEL_KEY, "value": word, "level": DEFAULT_LEVEL})
        self._agents_word = word
        self._agents_level = _VERBOSITY.get(word.casefold(), DEFAULT_LEVEL)
        self._set_level()

    def reconnected(self) -> None:
        """Have the agent's level read again: it may be another agent by now."""
        self._reconnected.set()

    async def follow(self) -> None:
        """Read the agent's settings after each reconnect, without end."""
        while True:
            await self._reconnected.wait()
            self._reconnected = anyio.Event()
            try:
                self.agent(await self._around.agent.settings(SYSTEM_PLUGIN))
            except AgentError as exc:  # The level of before stays until the next time.
                log.debug("log.level_unread", extra={"reason": str(exc)})

    # --- what is told to the parts ------------------------------------------------------------------------------------

    def serve(self, store: Store, dispatcher: Dispatcher, link: Link) -> None:
        """Tell also these parts, which are made once the first settings are there."""
        self._store, self._dispatcher, self._link = store, dispatcher, link
        self._apply({name for name in KEYS if getattr(self.chosen, name) is not None})

    def _set_level(self, most: str = LOG_LEVELS[-1]) -> None:
        word = self.chosen.log_level or self._agents_level
        wanted = min(word, most, key=LOG_LEVELS.index)
        if wanted != self._around.logs.level:
            self._around.logs.level = wanted

    def _apply(self, changed: set[str]) -> None:
        if changed & {"log_max_records", "log_max_mb"}:
            self._around.pipe.bound(records=self._at("log_max_records"), size=self._bytes("log_max_mb"))
        if "heartbeat" in changed:
            self._status.pace(self._at("heartbeat"))
        if "stall_seconds" in changed:
            self._around.stall(self._at("stall_seconds"))
        if self._store is not None and changed & _ON_DISK:
            self._store.bound(self.limits)
        if changed & (_IN_MEMORY | _ON_DISK):
            self._outbox.bound(
                limit=self._at("outbox_max_messages"),
                size=self._bytes("outbox_max_mb"),
                max_age=self._at("outbox_max_seconds"),
            )
            self._room()
        if self._link is not None and "link_budget" in changed:
            self._link.budget = self._at("link_budget")
        if self._dispatcher is not None:
            self._tell(self._dispatcher, changed)

    def _tell(self, dispatcher: Dispatcher, changed: set[str]) -> None:
        if changed & {"handler_waiting", "handler_waiting_mb"}:
            dispatcher.bound(self._at("handler_waiting"), self._bytes("handler_waiting_mb"))
        if changed & {"identities_max", "identities_seconds"}:
            dispatcher.remember(self._at("identities_max"), self._at("identities_seconds"))
        if "handler_deliveries" in changed:
            dispatcher.deliveries = self._at("handler_deliveries")
