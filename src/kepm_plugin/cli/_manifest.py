"""`gen-manifest`, `validate` and `schema`."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kepm_plugin.contract import PLUGINS_FOLDER
from kepm_plugin.contractfile import contract_schema
from kepm_plugin.errors import ManifestError, UsageError
from kepm_plugin.manifest import Manifest, drift, manifest_of, read_manifest, schema, to_json, validate_files
from kepm_plugin.plugin import Declarations, Plugin

Described = Literal["manifest", "contract"]
"""Files that have a schema."""

DRIFTED = 1
"""Exit code of a check that found a difference."""

OUTPUT: Final = "Write <Id>.json there, not to standard output."
PLATFORM: Final = "Windows, Linux or macOS; once for each. This one by default."
EXECUTABLE: Final = "The program, relative to the agent root or absolute. Plugins/bin/<Id>/<Id>[.exe]."
ARGUMENTS: Final = "Its command line; none by default."
CHECK: Final = "Compare with this file: print the drift, and exit with 1 on any."
FILES: Final = "Plugins' JSON files; those of --root where none is named."
JOBS_ROOT: Final = "Agent root: no plugin's program may be a task of its jobs."


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestArguments:
    """What the command line says about a manifest."""

    output: Path | None = None
    platform: Sequence[str] = ()
    executable: str | None = None
    arguments: str | None = None
    check: Path | None = None


def gen_manifest(kind: type[Plugin], wanted: ManifestArguments) -> int:
    """Write a plugin's manifest to standard output or into a folder, or compare it with a file; return the exit code.

    A check without platforms takes those of the file, so that it says the same on every machine.

    Raises:
        UsageError: The options do not fit each other or the plugin, or the folder cannot be written.
        ManifestError: The file to compare with cannot be read.
    """
    if wanted.check is not None and wanted.output is not None:
        raise UsageError("--check compares and -o writes; give one of them")
    if wanted.executable == "":
        raise UsageError("--executable is empty; name the program, or leave the option out")
    declarations = kind.declarations()
    if wanted.check is None:
        made = _made(declarations, wanted, wanted.platform)
        if wanted.output is None:
            _print(to_json(made))
        else:
            print(write(made, wanted.output))
        return 0
    found = read_manifest(wanted.check)
    platforms = wanted.platform or [one for one in found.platforms if one in set(kind.platforms)]
    lines = drift(_made(declarations, wanted, platforms), found)
    for line in lines:
        print(line)
    if lines:
        print(
            f"kepm-plugin: {wanted.check} has drifted from {kind.__name__} (lost: only the file has it; gained: only "
            f"the code has it); write it anew with gen-manifest -o {wanted.check.parent}",
            file=sys.stderr,
        )
    return DRIFTED if lines else 0


def validate(files: Sequence[Path], root: Path | None = None) -> int:
    """Check manifest files and print the findings; return the exit code, 0 where there are warnings only.

    Without files those of the agent root are meant.

    Raises:
        UsageError: There is no file to check.
    """
    if not files and root is not None:
        files = sorted((root / PLUGINS_FOLDER).glob("*.json"))
        if not files:
            raise UsageError(f"--root {root}: there is no file {PLUGINS_FOLDER}/*.json in it; name an agent root")
    if not files:
        raise UsageError("name a file, or an agent root with --root")
    found = validate_files(files, root)
    for one in found.all:
        print(one)
    counts = (_count(len(files), "file"), _count(len(found.errors), "error"), _count(len(found.warnings), "warning"))
    print(", ".join(counts))
    return ManifestError.exit_code if found.errors else 0


def print_schema(of: Described) -> None:
    """Print the JSON Schema of a plugin's JSON, or of a contract file."""
    described = schema() if of == "manifest" else contract_schema()
    _print(json.dumps(described, indent=2).encode() + b"\n")


def write(manifest: Manifest, folder: Path) -> Path:
    """Write a manifest as `<PluginId>.json`, at once or not at all; return its path.

    Raises:
        UsageError: The folder cannot be made or written to.
    """
    path = folder / f"{manifest.id}.json"
    if folder.suffix.casefold() == ".json" and not folder.is_dir():
        raise UsageError(f"-o {folder}: name the folder, the file in it is called {path.name}")
    text = to_json(manifest)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text)
        draft.replace(path)
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}; name a folder that you may write to") from exc
    finally:
        with suppress(OSError):
            draft.unlink()
    return path


def _made(declarations: Declarations, wanted: ManifestArguments, platforms: Sequence[str]) -> Manifest:
    return manifest_of(declarations, platforms=platforms, executable=wanted.executable, arguments=wanted.arguments)


def _print(text: bytes) -> None:
    # Bytes, because text would be re-encoded and get other line ends on Windows.
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
