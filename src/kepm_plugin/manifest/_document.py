"""`Manifest`: the content of one file, in documented casing and order, unknown fields kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from kepm_plugin.errors import ManifestError

from ._fields import BY_PATH, FIELDS, KINDS, Field, children


class Manifest(Struct, frozen=True):
    """A plugin's JSON. Documented fields come first and spelt as documented, then the others as they came."""

    content: dict[str, Any]
    respelt: tuple[tuple[str, str], ...] = ()
    """Paths that a file spelt in another casing, and the documented spelling of each."""

    def get(self, path: str, default: object = None) -> Any:
        """Return the value at a way with dots, as in `Subscription.Qos`."""
        found: Any = self.content
        for name in path.split("."):
            if not isinstance(found, dict) or name not in found:
                return default
            found = cast("dict[str, Any]", found)[name]
        return found

    @property
    def id(self) -> str:
        """The plugin's id, `""` where the file has none."""
        return str(self.get("id", ""))

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms, as listed."""
        return tuple(self.get("supportedPlatforms", ()))

    @property
    def publish(self) -> tuple[str, ...]:
        """Filters that the plugin may publish to, as listed."""
        return tuple(self.get("metadata.mqttTopics.publish", ()))

    @property
    def subscribe(self) -> tuple[str, ...]:
        """Filters that the plugin may subscribe to, as listed; `Subscription.Topic` comes on top."""
        return tuple(self.get("metadata.mqttTopics.subscribe", ()))

    @property
    def settings(self) -> dict[str, Any]:
        """What stands at the root and is not documented."""
        known = children("")
        return {key: value for key, value in self.content.items() if key not in known}


def to_json(manifest: Manifest) -> bytes:
    """Return the file's bytes: UTF-8, two spaces, a newline at the end; equal for equal manifests.

    Raises:
        ManifestError: A value is no JSON.
    """
    try:
        text = json.dumps(manifest.content, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as exc:
        raise ManifestError(
            f"the manifest of {manifest.id} cannot be written as JSON: {exc}; correct that value"
        ) from exc


def read_manifest(source: Path | bytes) -> Manifest:
    """Read a plugin's JSON. Names may have any casing; what is missing or unknown is no error here.

    Raises:
        ManifestError: The file cannot be read, is no JSON object, has a name twice, or a field of the wrong type.
    """
    where = source.name if isinstance(source, Path) else "the manifest"
    manifest = parse(source)
    for field, remedy in type_problems(manifest):
        raise ManifestError(f"{where}: {field}: {remedy}")
    return manifest


def parse(source: Path | bytes) -> Manifest:
    """Read a plugin's JSON whatever the types of its fields are.

    Raises:
        ManifestError: The file cannot be read, is no JSON object, or has a name twice.
    """
    where = source.name if isinstance(source, Path) else "the manifest"
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        # Of bytes, json finds out the encoding; editors and shells on Windows write UTF-8 and UTF-16 with a mark.
        content: object = json.loads(data, parse_constant=_no_constant)
    except OSError as exc:
        raise ManifestError(f"{where}: cannot be read: {exc.strerror or exc}; name a file that can") from exc
    except RecursionError as exc:
        raise ManifestError(f"{where}: is nested too deeply; this is no plugin's JSON") from exc
    except ValueError as exc:
        raise ManifestError(f"{where}: is no JSON: {exc}; correct it there") from exc
    if not isinstance(content, dict):
        raise ManifestError(f"{where}: is not a JSON object; write the plugin's fields between '{{' and '}}'")
    respelt: list[tuple[str, str]] = []
    ordered = _ordered(where, cast("dict[str, Any]", content), "", respelt)
    return Manifest(ordered, tuple(respelt))


def type_problems(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield every documented field whose value is of another type, with the remedy."""
    for one in FIELDS:
        value = manifest.get(one.path, _NOTHING)
        if value is not _NOTHING and not one.fits(value):
            yield one.path, f"must be {KINDS[one.kind]}, not {shown(value)}"


def shown(value: object) -> str:
    """Return a value as short JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"


_NOTHING = object()


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _ordered(where: str, content: dict[str, Any], parent: str, respelt: list[tuple[str, str]]) -> dict[str, Any]:
    """Return an object with documented names spelt and ordered as documented; at undocumented places nothing moves."""
    known: dict[str, Field] = children(parent)
    by_case = {name.lower(): name for name in known}
    prefix = f"{parent}." if parent else ""
    found: dict[str, Any] = {}
    for written, value in content.items():
        name = by_case.get(written.lower(), written)
        if name in found:
            raise ManifestError(
                f"{where}: {prefix}{name}: is there twice, as names are compared without case; remove one"
            )
        if name != written:
            respelt.append((prefix + written, prefix + name))
        path = prefix + name
        if path in BY_PATH and BY_PATH[path].kind == "object" and isinstance(value, dict):
            found[name] = _ordered(where, cast("dict[str, Any]", value), path, respelt)
        else:
            found[name] = value
    order = [name for name in known if name in found]
    return {name: found[name] for name in [*order, *(name for name in found if name not in known)]}
