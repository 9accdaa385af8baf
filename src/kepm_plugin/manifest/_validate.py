"""Checks of manifest files: what is wrong in them, and what no example of the vendor's does."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

from msgspec import Struct

from kepm_plugin.contract import (
    BUILT_IN_PLUGINS,
    EXECUTION_CONTEXTS,
    LOGGER_TOPIC,
    MQTT_ROLE,
    PLATFORMS,
    PLUGIN_TYPE,
    REVERT_ALL,
)
from kepm_plugin.errors import BadTopic, ManifestError
from kepm_plugin.spelling import nearest
from kepm_plugin.topics import check_filter

from ._document import Manifest, parse, shown, type_problems
from ._fields import BY_PATH, FIELDS, children
from ._generate import WINDOWS
from ._jobs import also_tasks

Level = Literal["error", "warning"]

_RESERVED_IDS: Final = {one.casefold() for one in (*BUILT_IN_PLUGINS, REVERT_ALL)}
_FORBIDDEN_IN_ID: Final = re.compile(r"[_/+#\s\\\x00-\x1f]")
_IN_PROCESS: Final = "Service"  # pluginType of a component inside the agent, which has no program (Registration)
_IN_EVERY_EXAMPLE: Final = ("name", "Subscription.Qos", "Subscription.CleanSession", "metadata.mqttRole")


class Finding(Struct, frozen=True):
    """One thing that is wrong (`error`) or unusual (`warning`), with the remedy in its text."""

    file: Path
    field: str
    """Way to the field with dots; `""` for the file as a whole."""
    text: str
    level: Level = "error"

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.level}: {self.file}: {self.field + ': ' if self.field else ''}{self.text}"


class Findings(Struct, frozen=True):
    """All findings over some files, file by file."""

    all: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(one for one in self.all if one.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What no example of the vendor's does."""
        return tuple(one for one in self.all if one.level == "warning")


Said = Iterator[tuple[Level, str, str]]
"""Level, field and text of findings in one file."""

_NOTHING: Final = object()


def validate_files(paths: Sequence[Path], root: Path | None = None) -> Findings:
    """Check manifest files, each for itself and all against each other; nothing is raised for what is wrong in them.

    With an agent root, no program of theirs may be the task of a job there.
    """
    found: list[Finding] = []
    read: list[tuple[Path, Manifest]] = []
    for path in paths:
        if path.is_dir():
            found.append(Finding(path, "", f"is a folder; name the files in it, as in {path}/*.json"))
            continue
        try:
            manifest = parse(path)
        except ManifestError as exc:
            found.append(Finding(path, "", str(exc).partition(": ")[2]))
            continue
        for level, field, text in _check(manifest, path):
            found.append(Finding(path, field, text, level))
        read.append((path, manifest))
    found += _clashes(read)
    for path, task in also_tasks([path for path, _ in read], root) if root is not None else ():
        text = f"is also run by {task}; one program is a plugin's or a job's, give each its own copy"
        found.append(Finding(path, "executablePath", text))
    order = {path: number for number, path in enumerate(paths)}
    return Findings(tuple(sorted(found, key=lambda one: order[one.file])))


def _check(manifest: Manifest, path: Path) -> Said:
    wrong = dict(type_problems(manifest))
    for field, text in wrong.items():
        yield "error", field, text
    yield from _missing(manifest)
    for field, check in _CHECKS.items():
        value = manifest.get(field)
        if value is not None and not any(field == one or field.startswith(f"{one}.") for one in wrong):
            yield from check(manifest, value)
    if "id" not in wrong and manifest.id and manifest.id != path.stem:
        yield "error", "id", f"is {manifest.id!r}, so the file must be called {manifest.id}.json"
    if manifest.get("autoRestart") is True and manifest.get("requiresMonitoring") is False:
        yield "warning", "autoRestart", "has no effect without requiresMonitoring; set both or none"
    yield from _spelling(manifest)


def _missing(manifest: Manifest) -> Said:
    for one in FIELDS:
        parent_there = not one.parent or isinstance(manifest.get(one.parent), dict)
        if not parent_there or manifest.get(one.path, _NOTHING) is not _NOTHING:
            continue
        if one.required:
            yield "error", one.path, "is missing; the vendor requires it"
        elif one.path == "executablePath" and manifest.get("pluginType", PLUGIN_TYPE) != _IN_PROCESS:
            yield "error", one.path, "is missing; name the program, relative to the agent root or absolute"
        elif one.path in _IN_EVERY_EXAMPLE:
            yield "warning", one.path, "is missing, and every example of the vendor's has it; add it"


def _id(_: Manifest, value: str) -> Said:
    found = _FORBIDDEN_IN_ID.search(value)
    if found or not value:
        what = f"{value!r} holds {found.group()!r}" if found else "is empty"
        yield (
            "error",
            "id",
            f"{what}; use letters, digits, '-' and '.', as it is a file name, a topic and part of a URL",
        )
    elif value.casefold() in _RESERVED_IDS:
        yield "error", "id", f"{value!r} is used by the agent itself; choose another"


def _plugin_type(_: Manifest, value: str) -> Said:
    if value not in (PLUGIN_TYPE, _IN_PROCESS):
        yield "warning", "pluginType", f"{value!r} is in no example; a program of its own is {PLUGIN_TYPE!r}"


def _executable(manifest: Manifest, value: str) -> Said:
    if not value.strip():
        yield "error", "executablePath", "is empty; name the program, relative to the agent root or absolute"
        return
    platforms = manifest.get("supportedPlatforms")
    if not isinstance(platforms, list):
        return
    windows_only = cast("list[object]", platforms) == [WINDOWS]
    is_exe = PurePosixPath(value.replace("\\", "/")).suffix.casefold() == ".exe"
    if is_exe and not windows_only:
        yield (
            "warning",
            "executablePath",
            f"ends with '.exe', which is right on {WINDOWS} only; write a file per platform",
        )
    elif windows_only and not is_exe:
        yield "warning", "executablePath", f"does not end with '.exe' as programs do on {WINDOWS}; add it"


def _platforms(_: Manifest, value: list[str]) -> Said:
    if not value:
        yield "error", "supportedPlatforms", f"is empty; list {', '.join(PLATFORMS)} as they apply"
    for one in value:
        if one not in PLATFORMS:
            yield "error", "supportedPlatforms", f"{one!r} is no platform; use {', '.join(PLATFORMS)}"


def _primary(manifest: Manifest, value: str) -> Said:
    yield from _filters("Subscription.Topic", [value])
    if value != manifest.get("id"):
        yield "warning", "Subscription.Topic", "is not the id, as it is in every example; make it the id"


def _qos(_: Manifest, value: int) -> Said:
    if not 0 <= value <= 2:
        yield "error", "Subscription.Qos", f"is {value}; MQTT knows 0, 1 and 2"
    elif value != 2:
        said = f"is {value}, and 2 in every example; no page says that it may differ"
        if value == 1:
            said += (
                ". It is the framework's default and subscribes as MQTT allows: a half-received QoS 2 message dies "
                "with the process; write qos = 2 in the plugin to follow the examples"
            )
        yield "warning", "Subscription.Qos", said


def _clean_session(_: Manifest, value: bool) -> Said:
    if not value:
        yield (
            "warning",
            "Subscription.CleanSession",
            "is false, and true in every example; the broker may not keep sessions",
        )


def _role(_: Manifest, value: list[str]) -> Said:
    if set(value) != set(MQTT_ROLE):
        yield "warning", "metadata.mqttRole", f"is {shown(value)}, and {shown(list(MQTT_ROLE))} in every example"


def _publish(_: Manifest, value: list[str]) -> Said:
    yield from _filters("metadata.mqttTopics.publish", value)
    if LOGGER_TOPIC not in value:
        yield (
            "error",
            "metadata.mqttTopics.publish",
            f"lacks {LOGGER_TOPIC!r}, so that log records are dropped without a word; add it",
        )


def _subscribe(_: Manifest, value: list[str]) -> Said:
    yield from _filters("metadata.mqttTopics.subscribe", value)


def _filters(field: str, values: Sequence[str]) -> Said:
    for one in values:
        try:
            check_filter(one)
        except BadTopic as exc:
            yield "error", field, str(exc)
            continue
        if "#" in one:
            yield (
                "warning",
                field,
                f"{one!r} holds '#', which is in no example; list the topics, or use '+' for one level",
            )


def _context(_: Manifest, value: str) -> Said:
    if value not in EXECUTION_CONTEXTS:
        yield "error", "executionContext", f"{value!r} is unknown; use {', '.join(EXECUTION_CONTEXTS)}"


_CHECKS: Final[dict[str, Callable[[Manifest, Any], Said]]] = {
    "id": _id,
    "pluginType": _plugin_type,
    "executablePath": _executable,
    "supportedPlatforms": _platforms,
    "Subscription.Topic": _primary,
    "Subscription.Qos": _qos,
    "Subscription.CleanSession": _clean_session,
    "metadata.mqttRole": _role,
    "metadata.mqttTopics.publish": _publish,
    "metadata.mqttTopics.subscribe": _subscribe,
    "executionContext": _context,
}


def _spelling(manifest: Manifest) -> Said:
    for written, documented in manifest.respelt:
        yield "warning", written, f"the vendor writes {documented!r}; whether other casing is read is not documented"
    for parent in ("", *(one.path for one in FIELDS if one.kind == "object")):
        held: Any = manifest.get(parent) if parent else manifest.content
        if not isinstance(held, dict):
            continue
        keys = [str(key) for key in cast("dict[str, Any]", held)]
        free = [name for name in children(parent) if name not in keys]
        for key in keys:
            near = "" if key in children(parent) else nearest(key, free, cutoff=0.85)
            if near:
                way = f"{parent}.{key}" if parent else key
                yield "warning", way, f"is no documented field; if {near!r} is meant, correct it"


def _clashes(read: Sequence[tuple[Path, Manifest]]) -> Iterator[Finding]:
    # Ids are file names and keys, topics routes: on some platform two that differ in case only are the same.
    for field in ("id", "Subscription.Topic"):
        seen: dict[str, Path] = {}
        for path, manifest in read:
            value = manifest.get(field)
            if not isinstance(value, str) or not BY_PATH[field].fits(value):
                continue
            first = seen.setdefault(value.casefold(), path)
            if first is not path:
                yield Finding(path, field, f"{value!r} is taken by {first}; every plugin has its own")
