"""A plugin as a bundle that an agent can launch: built, checked and put where an agent root has it.

This package knows the layout below a root. It knows neither the agent's own files there nor how a bundle gets onto an
endpoint.
"""

import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from kepm_plugin.contract import PLUGINS_FOLDER
from kepm_plugin.errors import ManifestError, UsageError
from kepm_plugin.manifest import Manifest, drift, manifest_of, read_manifest, to_json
from kepm_plugin.target import load

from ._freeze import freeze
from ._place import check_place, install, settle

__all__ = ["Bundle", "build"]

CHECK_WITHIN = 60.0
"""Seconds until the frozen plugin must have printed its manifest; a second is usual."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was built: the absolute paths of the plugin's JSON file and of its program."""

    manifest: Path
    program: Path


def build(target: str, *, out: Path, options: Sequence[str] = ()) -> Bundle:
    """Build a plugin's bundle for this platform.

    Below `out` are then, as in an agent root, `Plugins/<Id>.json` and the folder `Plugins/bin/<Id>` with the program
    (Plugin Guide). Both are put there once everything is done, in place of older ones; a failure leaves those alone.
    The frozen program has printed this very manifest by then, with an empty environment.

    Args:
        target: `package.module:Class` or `path/file.py:Class`.
        out: The folder; it is made where it is missing. Beside it nothing is written.
        options: For PyInstaller, after ours; paths in them are absolute.

    Raises:
        UsageError: The target is wrong or not for this platform, PyInstaller is missing or fails, the frozen program
            does not start, or `out` cannot be written.
        PluginDefinitionError: The plugin's declarations are wrong.
        ManifestError: The frozen program has other declarations than the code.
    """
    kind = load(target)
    manifest = manifest_of(kind.declarations())
    program = out.absolute() / str(manifest.get("executablePath", ""))
    path = out.absolute() / PLUGINS_FOLDER / f"{kind.id}.json"
    check_place(program.parent)
    with _staging(out) as stage:
        built = freeze(kind, stage, options)
        settle(built)
        _check(built / program.name, manifest, stage)
        install(built, program.parent, to_json(manifest), path, stage)
    return Bundle(path, program)


@contextmanager
def _staging(out: Path) -> Generator[Path]:
    """Yield a private folder on the file system of `out`, where a folder can be renamed to its place."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        stage = TemporaryDirectory(prefix=".kepm-package-", dir=out.absolute(), ignore_cleanup_errors=True)  # mode 0700
    except OSError as exc:
        raise UsageError(f"{out} cannot be written: {exc.strerror}; name a folder that you may write to") from exc
    with stage as name:
        yield Path(name)


def _check(program: Path, manifest: Manifest, stage: Path) -> None:
    """Have the frozen program print its manifest: an endpoint has no Python that could."""
    # Without it Windows starts no program that uses the network.
    needed = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    try:
        done = subprocess.run(  # noqa: S603
            [program, "gen-manifest"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            cwd=stage,
            env=needed,
            timeout=CHECK_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise UsageError(f"the frozen program does not run: {exc}") from exc
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with code {done.returncode}"]
        reason = next((line for line in reversed(said) if not line.startswith("[PYI-")), said[-1])
        raise UsageError(
            f"the frozen program does not start: {reason}; a module that is imported by name only has to be named: "
            "-- --hidden-import NAME"
        )
    if done.stdout != to_json(manifest):
        printed = stage / f"{manifest.id}.json"
        printed.write_bytes(done.stdout)
        lines = drift(manifest, read_manifest(printed)) or ["only the text differs"]
        raise ManifestError(
            f"the frozen program has another manifest than the code ({'; '.join(lines)}); what it declares must not "
            "depend on the environment or on how it was started"
        )
