"""A small plugin in a package of its own, and the command line as a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WORKER = '''
from kepm_plugin import Plugin, Settings, setting


class ScannerSettings(Settings):
    root: str = setting(default="/etc", key="scan.root", max_length=1_000)
    token: str = setting(default="s3cret", secret=True)


class Scanner(Plugin):
    """Scans folders."""

    id = "Scanner"
    version = "1.0.0"
    modules = (".handlers",)
    settings: ScannerSettings


if __name__ == "__main__":
    Scanner.main()
'''
HANDLERS = """
from typing import Any

from kepm_plugin import Handler, Message
from kepm_plugin.errors import Rejected

from .worker import Scanner


@Scanner.command("scan")
class Scan(Handler[Scanner]):
    async def handle(self, message: Message[dict[str, Any]]) -> dict[str, Any]:
        if "no" in message.payload:
            raise Rejected("no")
        return {"root": self.plugin.settings.root, "asked": message.payload}
"""
SINGLE = """
from kepm_plugin import Handler, Message, Plugin


class Single(Plugin):
    id = "Single"


@Single.command("ping")
class Ping(Handler[Single]):
    async def handle(self, message: Message[bytes]) -> str:
        return "pong"


if __name__ == "__main__":
    Single.main()
"""

Finished = subprocess.CompletedProcess[str]
Command = Callable[..., Finished]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the package `scanner` (its plugin has handlers in a second module) and the file `single.py`."""
    folder = tmp_path / "my project"
    (folder / "scanner").mkdir(parents=True)
    (folder / "scanner" / "__init__.py").write_text("", "utf-8")
    (folder / "scanner" / "worker.py").write_text(WORKER, "utf-8")
    (folder / "scanner" / "handlers.py").write_text(HANDLERS, "utf-8")
    (folder / "single.py").write_text(SINGLE, "utf-8")
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a command: nothing about KEPM, no colours, wide lines, its own place for state."""
    hidden = ("KEPM_", "KEEPER_", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1", "XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def python(project: Path, environment: dict[str, str]) -> Command:
    """Run Python with arguments in the project's folder."""

    def run(*arguments: str | Path, cwd: Path = project, **variables: str) -> Finished:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def kepm_plugin(python: Command) -> Command:
    """Run `python -m kepm_plugin` with arguments in the project's folder."""

    def run(*arguments: str | Path, **options: object) -> Finished:
        return python("-m", "kepm_plugin", *arguments, **options)

    return run
