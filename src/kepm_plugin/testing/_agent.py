"""The agent's settings API in memory, and the settings that a test gives it."""

from collections.abc import Iterable, Mapping

from kepm_plugin.contract import BROKER_HOST_KEY, BROKER_PORT_KEY, RESERVED_SETTING_PREFIX, SYSTEM_PLUGIN
from kepm_plugin.errors import AgentRefused, SettingsError, UnknownPlugin, UsageError
from kepm_plugin.knobs import KEYS, near_miss
from kepm_plugin.live import Reading
from kepm_plugin.settings import Settings, declares, leaves_of
from kepm_plugin.spelling import nearest

Setting = str | int | float | bool


class MemoryAgent:
    """The agent's settings API in memory: stored values over those of the plugin's file."""

    def __init__(self, plugin_id: str, file: Mapping[str, Setting]) -> None:
        self._id = plugin_id
        self._file = {key: text(value) for key, value in file.items()}
        self.stored: dict[str, str] = {}
        """What was written, by the plugin or by the test."""
        self.system: dict[str, str] = {BROKER_HOST_KEY: "127.0.0.1", BROKER_PORT_KEY: "8675"}
        self.refusing = False
        """True answers everything with 403."""

    async def settings(self, plugin: str) -> dict[str, str]:
        """Return the merged settings."""
        self._check(plugin)
        return dict(self.system) if plugin == SYSTEM_PLUGIN else self._file | self.stored

    async def setting(self, plugin: str, key: str) -> str:
        """Return one of them."""
        values = await self.settings(plugin)
        if key not in values:
            raise UnknownPlugin(f"404: {plugin} has no setting {key!r} at the agent in memory")
        return values[key]

    async def status(self, plugin: str) -> dict[str, object]:
        """Return a hash over the merged settings."""
        return {"settingsHash": str(hash(frozenset((await self.settings(plugin)).items())))}

    async def put_setting(self, plugin: str, key: str, value: Setting) -> None:
        """Write one setting."""
        self._check(plugin)
        self.stored[key] = text(value)

    async def revert(self, plugin: str) -> None:
        """Go back to the file."""
        self._check(plugin)
        self.stored.clear()

    def _check(self, plugin: str) -> None:
        if self.refusing:
            raise AgentRefused("403: the agent in memory was told to refuse")
        if plugin not in (self._id, SYSTEM_PLUGIN):
            raise UnknownPlugin(f"404: the agent in memory has no plugin {plugin!r}")


def check_keys(settings: type[Settings], keys: Iterable[str]) -> None:
    """Refuse a test's slip; the agent itself may well hold keys that a plugin does not declare.

    Raises:
        UsageError: With the near miss.
    """
    fields = {field.key: field for field in leaves_of(settings)}
    names = {field.name: field.key for field in fields.values()}
    for key in keys:
        if declares(settings, key) or key.casefold() in KEYS.values():
            continue
        if key.casefold().startswith(RESERVED_SETTING_PREFIX):
            meant = f"did you mean {near!r}?" if (near := near_miss(key)) else f"there is: {', '.join(KEYS.values())}"
            raise UsageError(f"the framework has no setting {key!r}; {meant}")
        if key in names:
            raise UsageError(f"{settings.__name__}.{key} has the key {names[key]!r} at the agent; write that")
        if not fields:
            raise UsageError(
                f"the plugin declares no settings, so there is no {key!r}; annotate 'settings: MySettings'"
            )
        raise UsageError(f"{settings.__name__} declares no key {key!r}; its keys: {listed(list(fields), key)}")


def check_secrets(settings: type[Settings], given: Mapping[str, Setting]) -> None:
    """Refuse a test that would wait for ever.

    Raises:
        SettingsError: A required secret is not there, and nothing else is wrong.
    """
    missing = Reading(settings).missing_secrets({key: text(value) for key, value in given.items()})
    if missing:
        raise SettingsError(
            f"{settings.__name__}: {', '.join(missing)} is not set, and at an agent the plugin would wait until it is; "
            "give it, as in hosted(MyPlugin, settings={…})",
            key=missing[0],
        )


def listed(known: list[str], wanted: str) -> str:
    """Return what there is, and what may be meant."""
    near = nearest(wanted, known)
    return (", ".join(known) or "none") + (f"; did you mean {near!r}?" if near else "")


def text(value: Setting) -> str:
    """Return a value as the agent has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
