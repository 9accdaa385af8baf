"""PyInstaller: its command line, the script that it starts from, and what a plugin's process does without.

It runs as a process of its own, so that its hooks and its state stay out of ours.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Final

from kepm_plugin.errors import UsageError
from kepm_plugin.plugin import Plugin

_OURS: Final = "kepm_plugin"

ENTRY: Final = """\
from multiprocessing import freeze_support

if __name__ == "__main__":
    freeze_support()  # before all else: a worker of multiprocessing is this program, too
    from {module} import {name}

    {qualname}.main()
"""
"""The plugin's module keeps its dotted name, so that the modules that register handlers import the class that runs."""

LEFT_OUT: Final = (
    "httpx._main",
    "kepm_plugin.bundle",
    "kepm_plugin.cli._app",
    "kepm_plugin.cli._dev",
    "kepm_plugin.cli._diff",
    "kepm_plugin.cli._settings_commands",
    "kepm_plugin.devagent",
    "kepm_plugin.scaffold",
    "kepm_plugin.testing",
    "pydantic._hypothesis_plugin",
    "pydantic.mypy",
    "pydantic.v1._hypothesis_plugin",
    "pydantic.v1.mypy",
)
"""Modules of ours, and of libraries, that only a developer's machine needs."""

NOT_FOR_OURS: Final[Mapping[str, tuple[str, ...]]] = {
    "anyio": ("_pytest", "trio", "uvloop", "winloop"),
    "httpcore": ("trio",),
    "httpx": ("trio",),
    "kepm_plugin": ("psutil",) if sys.platform == "linux" else (),
    "msgspec": ("attr", "attrs", "tomli_w", "yaml"),
    "structlog": ("better_exceptions", "colorama", "rich", "twisted"),
}
"""What a library of ours could use and a plugin's process never does. An author's own import of it still counts."""

HIDDEN: Final[Mapping[str, tuple[str, ...]]] = {
    "anyio": ("anyio._backends._asyncio",),
    "kepm_plugin": ("kepm_plugin.cli", *(() if sys.platform == "linux" else ("psutil",))),
}
"""What is imported by name, where PyInstaller cannot see it."""


def freeze(kind: type[Plugin], stage: Path, options: Sequence[str]) -> Path:
    """Freeze a plugin inside of `stage`, and return the folder with its program.

    Raises:
        UsageError: PyInstaller is not installed, or fails, or does not make such a folder.
    """
    if find_spec("PyInstaller") is None:
        raise UsageError("packaging needs PyInstaller, which is not installed; install kepm-plugin[package]")
    hooks, work, dist = stage / "hooks", stage / "work", stage / "dist"
    hooks.mkdir()
    for library in sorted({*NOT_FOR_OURS, *HIDDEN}):
        (hooks / f"hook-{library}.py").write_text(
            f"excludedimports = {list(NOT_FOR_OURS.get(library, ()))}\n"
            f"hiddenimports = {list(HIDDEN.get(library, ()))}\n",
            "utf-8",
        )
    entry = stage / "plugin_process.py"
    name = kind.__qualname__.partition(".")[0]
    entry.write_text(ENTRY.format(module=kind.__module__, name=name, qualname=kind.__qualname__), "utf-8")
    modules = list(dict.fromkeys(_modules(kind)))
    command = [
        *(sys.executable, "-P", "-m", "PyInstaller"),  # -P: nothing in the working folder passes for a module
        *("--onedir", "--name", kind.id),  # one file would run as a child process, which the agent did not launch
        *("--distpath", str(dist), "--workpath", str(work), "--specpath", str(stage)),
        *("--noconfirm", "--log-level", "WARN"),
        *("--noupx", "--optimize", "0"),  # docstrings are descriptions
        *("--additional-hooks-dir", str(hooks)),
        *(word for path in dict.fromkeys(_roots(modules)) for word in ("--paths", str(path))),
        *(word for module in modules for word in ("--hidden-import", module)),
        *(word for module in LEFT_OUT for word in ("--exclude-module", module)),
        *options,
        str(entry),
    ]
    done = subprocess.run(  # noqa: S603
        command,
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(stage / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["nothing was said"]
        raise UsageError(f"PyInstaller ended with code {done.returncode}: {said[-1].strip()}")
    built = dist / kind.id
    if not built.is_dir():
        raise UsageError(
            f"PyInstaller made no folder {kind.id}; leave out the option that makes it a file, or renames it"
        )
    return built


def _modules(kind: type[Plugin]) -> Iterator[str]:
    """Yield the names of the modules that the plugin's classes stand in, and of those that they name."""
    for base in kind.__mro__:
        if base.__module__ == "builtins" or base.__module__.startswith(f"{_OURS}."):
            continue
        yield base.__module__
        package = getattr(sys.modules[base.__module__], "__package__", None) or ""
        for name in vars(base).get("modules", ()):
            yield resolve_name(name, package) if package else name.lstrip(".")


def _roots(modules: Sequence[str]) -> Iterator[Path]:
    """Yield the folders that the modules are found from."""
    for name in modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None:
            path = Path(file).resolve()
            yield path.parents[name.count(".") + (path.stem == "__init__")]
