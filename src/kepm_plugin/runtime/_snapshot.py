"""The settings of the plugin that runs: into `plugin.settings`, its hook, `Status`, the knobs and `Status/settings`."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from kepm_plugin.contract import settings_topic
from kepm_plugin.dispatch import Failure, guarded
from kepm_plugin.live import LiveOptions, LiveSettings, Told
from kepm_plugin.message import Publication, encode_json
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Plugin, holding_settings
from kepm_plugin.settings import Change, Settings, fields_of

from ._knobs import KnobControl
from ._status import Status
from ._surroundings import Surroundings

log = logging.getLogger("kepm_plugin.runtime")


async def call_hook(function: Callable[..., Any], argument: object) -> None:
    """Call a hook of the author's; one that fails is in the log."""
    outcome = await guarded(function, argument)
    if isinstance(outcome, Failure):
        log.error("hook.failed", exc_info=outcome.error, extra={"method": function.__name__})


class PluginSettings(LiveSettings):
    """Live settings, and those in this process whom they concern.

    Args:
        plugin: Has the snapshot, and the hook.
        kind: The class that the plugin declares.
        around: Where agent and folder are.
        outbox: Takes the reports.
        status: Is degraded by what is not in force.
        knobs: Take the framework's own settings, and say how often to look.
        redact: Masks secrets in a text; the limit is in characters.
    """

    def __init__(
        self,
        plugin: Plugin,
        kind: type[Settings],
        around: Surroundings,
        outbox: Outbox,
        status: Status,
        knobs: KnobControl,
        redact: Callable[[str, int], str],
    ) -> None:
        self._plugin, self._outbox, self._status = plugin, outbox, status
        reported = plugin.heartbeat is not None and fields_of(kind)
        self._topic = settings_topic(plugin.id) if reported else None
        options = LiveOptions(
            interval=lambda: knobs.settings_interval,
            settle=around.settle,
            folder=around.settings_folder,
            contract=around.contract,
            redact=redact,
        )
        told = Told(
            taken=self._take,
            changed=self._changed,
            trouble=partial(status.trouble, "settings"),
            reported=self.publish,
            seen=knobs.seen,
        )
        super().__init__(around.agent, plugin.id, kind, options, told)

    def _take(self, settings: Any) -> None:
        self._plugin.settings = settings

    async def _changed(self, change: Change[Any]) -> None:
        log.info("settings.changed", extra={"names": sorted(change.names)})
        with holding_settings(self._plugin):  # Whoever made the change may hold an older snapshot.
            await call_hook(self._plugin.on_settings_changed, change)

    def publish(self) -> None:
        """Publish the report, where there is one and a link."""
        if self._topic is not None and self._status.up:
            body = encode_json(self.report())
            self._outbox.put_soon(Publication(self._topic, body, qos=1, retain=True), first=True)
