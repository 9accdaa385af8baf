"""The plugins' JSON files as the agent reads them: `Plugins/<PluginId>.json`, any casing of names, unknown fields kept.

A second opinion: this shares no code with the framework's own reading of manifests. A file that is wrong is skipped,
with file, field and remedy; the others go on (what the agent does is not documented).
"""

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kepm_plugin.contract import BUILT_IN_PLUGINS, EXECUTION_CONTEXTS, PLATFORMS, PLUGIN_TYPE, REVERT_ALL
from kepm_plugin.devagent.rights import Rights, well_formed

DOCUMENTED: Final = frozenset(
    name.lower()
    for name in (
        *("id", "name", "description", "version", "pluginType", "executablePath", "arguments", "supportedPlatforms"),
        *("Subscription", "metadata", "startupPriority", "autoStart", "executionContext"),
        *("requiresMonitoring", "autoRestart"),
    )
)
"""Root fields of a plugin's JSON in lower case (Plugin Guide, Registration); every other one is a setting."""

_FORBIDDEN_IN_ID: Final = re.compile(r"[_/+#\s\\\x00-\x1f]")
_RESERVED_IDS: Final = frozenset(name.lower() for name in (*BUILT_IN_PLUGINS, REVERT_ALL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One plugin as its file declares it. Defaults for what a file leaves out are assumed."""

    path: Path
    id: str
    name: str
    version: str
    executable_path: str
    arguments: str
    platforms: tuple[str, ...]
    primary_topic: str
    rights: Rights
    startup_priority: int = 60
    auto_start: bool = True
    requires_monitoring: bool = True
    auto_restart: bool = True
    execution_context: str = "Service"
    content: Mapping[str, Any]
    digest: str

    def runs_here(self, platform: str) -> bool:
        """Tell whether the plugin supports a platform, one of `Windows`, `Linux`, `macOS`."""
        return platform in self.platforms


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, and what to do."""

    file: Path
    field: str
    remedy: str

    def __str__(self) -> str:
        """Name file, field and remedy."""
        return f"{self.file.name}: {self.field}: {self.remedy}"


class _Invalid(Exception):
    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field, self.remedy = field, remedy


def platform_name(system: str = sys.platform) -> str:
    """Return the vendor's word for an operating system."""
    return {"win32": "Windows", "darwin": "macOS"}.get(system, "Linux")


def read_folder(folder: Path) -> tuple[dict[str, Manifest], list[Problem]]:
    """Read all plugin files of a folder in the order of their names."""
    manifests: dict[str, Manifest] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.json")):
        found = read_file(path, manifests.values())
        if isinstance(found, Problem):
            problems.append(found)
        else:
            manifests[found.id] = found
    return manifests, problems


def read_file(path: Path, others: Iterable[Manifest] = ()) -> Manifest | Problem:
    """Read one plugin's file, and compare it with the others that are loaded."""
    try:
        data = path.read_bytes()
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
        manifest = _parse(path, content, hashlib.sha256(data).hexdigest())
        for other in others:
            if other.id != manifest.id and other.primary_topic == manifest.primary_topic:
                raise _Invalid(
                    "Subscription.Topic", f"{manifest.primary_topic!r} is taken by {other.id}; choose another"
                )
            if other.id != manifest.id and other.id.lower() == manifest.id.lower():
                raise _Invalid("id", f"differs from {other.id} in case only; choose another")
    except _Invalid as exc:
        return Problem(path, exc.field, exc.remedy)
    except OSError as exc:
        return Problem(path, "file", f"cannot be read: {exc.strerror}")
    except (ValueError, RecursionError) as exc:
        return Problem(path, "file", f"is no JSON: {exc}")
    return manifest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: set[str] = set()
    for key, _ in pairs:
        if key.lower() in seen:
            raise _Invalid(key, "is there twice, names are compared without case; remove one")
        seen.add(key.lower())
    return dict(pairs)


class _Fields:
    """An object of the file, read by names in any casing; errors carry the way to the field."""

    def __init__(self, content: object, prefix: str = "") -> None:
        if not isinstance(content, dict):
            raise _Invalid(prefix.rstrip(".") or "file", "must be a JSON object")
        self._values: dict[str, object] = {str(key).lower(): value for key, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        self._prefix = prefix

    def child(self, name: str) -> "_Fields":
        """Return an object below this one; it is required."""
        if name.lower() not in self._values:
            raise _Invalid(self._prefix + name, "is missing; add the object")
        return _Fields(self._values[name.lower()], f"{self._prefix}{name}.")

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string; without a default it is required and must not be empty."""
        value = self._values.get(name.lower(), default)
        if value is None:
            raise _Invalid(self._prefix + name, "is missing; add it")
        if not isinstance(value, str) or (default is None and not value.strip()):
            raise _Invalid(self._prefix + name, f"must be a {'string' if default is not None else 'non-empty string'}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self._values.get(name.lower(), default)
        if not isinstance(value, bool):
            raise _Invalid(self._prefix + name, f"must be true or false, not {json.dumps(value)}")
        return value

    def number(self, name: str, default: int, allowed: range) -> int:
        """Return an integer of a range."""
        value = self._values.get(name.lower(), default)
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise _Invalid(self._prefix + name, f"must be a whole number from {allowed[0]} to {allowed[-1]}")
        return value

    def words(self, name: str, fits: Callable[[str], bool], what: str) -> tuple[str, ...]:
        """Return a list of strings; it is required."""
        if name.lower() not in self._values:
            raise _Invalid(self._prefix + name, "is missing; add the list")
        value = self._values[name.lower()]
        if not isinstance(value, list):
            raise _Invalid(self._prefix + name, "must be a list of strings")
        for entry in value:  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(entry, str) or not fits(entry):
                raise _Invalid(self._prefix + name, f"{json.dumps(entry)} is no {what}")
        return tuple(str(entry) for entry in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _parse(path: Path, content: object, digest: str) -> Manifest:
    fields = _Fields(content)
    plugin_id = fields.text("id")
    _check_id(plugin_id, path)
    kind = fields.text("pluginType")
    if kind != PLUGIN_TYPE:
        raise _Invalid(
            "pluginType", f"{kind!r} is not for a process of its own; a local agent runs {PLUGIN_TYPE!r} only"
        )
    platforms = fields.words("supportedPlatforms", PLATFORMS.__contains__, f"platform; use {', '.join(PLATFORMS)}")
    if not platforms:
        raise _Invalid("supportedPlatforms", f"is empty; list {', '.join(PLATFORMS)} as they apply")
    subscription = fields.child("Subscription")
    primary = subscription.text("Topic")
    if not well_formed(primary):
        raise _Invalid("Subscription.Topic", f"{primary!r} is no topic filter; by convention it is the id")
    subscription.number("Qos", 2, range(3))
    subscription.flag("CleanSession", default=True)
    topics = fields.child("metadata").child("mqttTopics")
    publish = topics.words("publish", well_formed, "topic filter")
    subscribe = topics.words("subscribe", well_formed, "topic filter")
    arguments = fields.text("arguments", "")
    split_arguments(arguments)
    context = fields.text("executionContext", "Service")
    if context not in EXECUTION_CONTEXTS:
        raise _Invalid("executionContext", f"{context!r} is unknown; use {', '.join(EXECUTION_CONTEXTS)}")
    return Manifest(
        path=path,
        id=plugin_id,
        name=fields.text("name", plugin_id),
        version=fields.text("version", ""),
        executable_path=fields.text("executablePath"),
        arguments=arguments,
        platforms=platforms,
        primary_topic=primary,
        rights=Rights.declared(publish, subscribe, primary),
        startup_priority=fields.number("startupPriority", 60, range(-1_000_000, 1_000_001)),
        auto_start=fields.flag("autoStart", default=True),
        requires_monitoring=fields.flag("requiresMonitoring", default=True),
        auto_restart=fields.flag("autoRestart", default=True),
        execution_context=context,
        content=content if isinstance(content, dict) else {},  # pyright: ignore[reportUnknownArgumentType]
        digest=digest,
    )


def _check_id(plugin_id: str, path: Path) -> None:
    if found := _FORBIDDEN_IN_ID.search(plugin_id):
        raise _Invalid("id", f"{plugin_id!r} holds {found.group()!r}; use letters, digits, '-' and '.'")
    if plugin_id.lower() in _RESERVED_IDS:
        raise _Invalid("id", f"{plugin_id!r} is used by the agent itself; choose another")
    if plugin_id != path.stem:
        raise _Invalid("id", f"is {plugin_id!r}, so the file must be called {plugin_id}.json")


def split_arguments(arguments: str) -> list[str]:
    """Split the one string of arguments as a shell would, without one: quotes group, nothing is expanded.

    A backslash stands for itself on Windows, where paths need it.
    """
    lexer = shlex.shlex(arguments, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if sys.platform == "win32":
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError as exc:
        raise _Invalid("arguments", f"cannot be split: {exc}; close what is open") from exc


def find_executable(manifest: Manifest, root: Path, plugins: Path) -> Path | str:
    """Return the plugin's program as an absolute path, or what is wrong with it.

    A relative path counts from the agent root first, then from `Plugins` (the vendor's pages disagree).
    """
    written = manifest.executable_path
    for token, folder in (("{pluginroot}", plugins), ("{approot}", root)):
        flags = re.IGNORECASE if sys.platform == "win32" else 0
        written = re.sub(re.escape(token), lambda _, folder=folder: str(folder), written, flags=flags)
    candidates = [Path(written)] if Path(written).is_absolute() else [root / written, plugins / written]
    if sys.platform == "win32":
        candidates += [path.with_name(path.name + ".exe") for path in candidates]
    for path in candidates:
        if path.is_file():
            return path
    tried = " and ".join(str(path) for path in candidates)
    return f"executablePath {manifest.executable_path!r} is no file: looked for {tried}"
