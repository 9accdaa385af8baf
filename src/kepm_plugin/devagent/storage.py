"""Settings as the agent keeps them: unified storage over the plugin's file (Settings Keys). Every value is a string."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kepm_plugin.contract import BROKER_HOST_KEY, BROKER_PORT_KEY, LOGGING_LEVEL_KEY, SYSTEM_PLUGIN
from kepm_plugin.devagent.layout import write_private
from kepm_plugin.devagent.likeness import Spelling
from kepm_plugin.devagent.manifests import DOCUMENTED, Manifest
from kepm_plugin.devagent.options import StatusForm
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.errors import UnknownPlugin

_MQTT_METADATA: Final = frozenset({"mqttrole", "mqtttopics"})
_NONE: Final[Mapping[str, Any]] = {}


def as_string(value: object) -> str:
    """Return a scalar as the API shows it: `True` and `False` as .NET spells them, null as the empty string.

    A list is shown as its JSON. How the agent spells either is not documented.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "True" if value else "False"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def spelled(value: object, spelling: Spelling) -> object:
    """Return a value as GET shows it, in one of the ways that are possible."""
    if spelling == "native":
        return value
    text = as_string(value)
    return text.lower() if spelling == "json" and isinstance(value, bool) else text


def flattened(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield settings with dotted keys; objects are opened, everything else is one value."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield prefix + key, value


def file_settings(content: Mapping[str, Any]) -> dict[str, object]:
    """Return what a plugin's file holds as settings: root keys that are no manifest fields, and those of `metadata`."""
    root = {key: value for key, value in content.items() if key.lower() not in DOCUMENTED}
    metadata: Mapping[str, Any] = next((value for key, value in content.items() if key.lower() == "metadata"), _NONE)
    below = {key: value for key, value in metadata.items() if key.lower() not in _MQTT_METADATA}
    return dict(flattened(below)) | dict(flattened(root))


def _digest(values: Mapping[str, str]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Storage:
    """The settings of all plugins, and those of the agent itself under `KeeperPrivilegeManager`."""

    def __init__(
        self,
        path: Path,
        broker: tuple[str, int],
        logging_level: str,
        terminal: Terminal,
        status: StatusForm = "settings-hash",
    ) -> None:
        self._path, self._terminal, self._status = path, terminal, status
        self._imported: dict[str, dict[str, object]] = {
            SYSTEM_PLUGIN: {
                BROKER_HOST_KEY: broker[0],
                BROKER_PORT_KEY: str(broker[1]),
                LOGGING_LEVEL_KEY: logging_level,
            }
        }
        self._digests: dict[str, str] = {SYSTEM_PLUGIN: ""}
        self._stored = self._read()

    def _read(self) -> dict[str, dict[str, object]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                str(plugin_id): {str(key): value for key, value in values.items()}
                for plugin_id, values in content.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as exc:
            aside = self._path.with_suffix(".damaged")
            self._terminal.warn(f"{self._path} cannot be used ({exc}); it is set aside as {aside.name}")
            self._path.replace(aside)
            return {}

    def load(self, manifest: Manifest) -> None:
        """Take the settings of a plugin's file in. What is stored stays in force over them."""
        self._imported[manifest.id] = file_settings(manifest.content)
        self._digests[manifest.id] = manifest.digest

    def move_broker(self, port: int) -> None:
        """Take the broker's new port in; a value that was stored over it stays in force."""
        self._imported[SYSTEM_PLUGIN][BROKER_PORT_KEY] = str(port)

    def plugins(self) -> tuple[str, ...]:
        """Return the names that have settings, `KeeperPrivilegeManager` first."""
        return tuple(self._imported)

    def effective(self, plugin_id: str) -> dict[str, str]:
        """Return the merged settings of a plugin, every value a string.

        Raises:
            UnknownPlugin: It is not registered; names are compared exactly.
        """
        return {key: as_string(value) for key, value in self.values(plugin_id).items()}

    def values(self, plugin_id: str) -> dict[str, object]:
        """Return the merged settings of a plugin, each value of the type that it was given with.

        Raises:
            UnknownPlugin: It is not registered.
        """
        if plugin_id not in self._imported:
            meant = next((f"; {one} is meant?" for one in self._imported if one.lower() == plugin_id.lower()), "")
            raise UnknownPlugin(f"no plugin {plugin_id!r}; registered: {', '.join(self._imported)}{meant}")
        return self._imported[plugin_id] | self._stored.get(plugin_id, {})

    def layers(self, plugin_id: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return what is stored for a plugin, and what its file held when it was imported.

        Raises:
            UnknownPlugin: The plugin is not registered.
        """
        self.effective(plugin_id)
        stored, file = self._stored.get(plugin_id, {}), self._imported[plugin_id]
        return {key: as_string(one) for key, one in stored.items()}, {key: as_string(one) for key, one in file.items()}

    def put(self, plugin_id: str, key: str, value: object) -> bool:
        """Store a value over the file's; tell whether the file has one.

        Raises:
            UnknownPlugin: The plugin is not registered.
        """
        self.effective(plugin_id)
        self._stored.setdefault(plugin_id, {})[key] = value
        self._write()
        return key in self._imported[plugin_id]

    def revert(self, plugin_id: str) -> None:
        """Forget what is stored for a plugin: its file, as imported last, holds again.

        Raises:
            UnknownPlugin: The plugin is not registered.
        """
        self.effective(plugin_id)
        if self._stored.pop(plugin_id, None) is not None:
            self._write()

    def status(self, plugin_id: str, file: Path | None) -> dict[str, object]:
        """Return what is known of changes: of the stored values, and of the file since it was imported.

        Raises:
            UnknownPlugin: The plugin is not registered, or this agent has no status.
        """
        values = self.effective(plugin_id)
        if self._status == "none":
            raise UnknownPlugin(f"this agent was told to have no status, of {plugin_id} or any other")
        now = hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else ""
        changed = sorted(
            key
            for key, value in self._stored.get(plugin_id, {}).items()
            if key not in self._imported[plugin_id] or as_string(self._imported[plugin_id][key]) != as_string(value)
        )
        own: dict[str, object] = {"settingsHash": _digest(values)} if self._status == "settings-hash" else {}
        return own | {
            "pluginName": plugin_id,
            "hasChanges": bool(changed),
            "changedSettings": changed,
            "importedHash": self._digests[plugin_id],
            "fileHash": now,
            "fileChanged": now != self._digests[plugin_id],
        }

    def _write(self) -> None:
        write_private(self._path, json.dumps(self._stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
