"""A plugin that is frozen once for all tests, by the command that a packager uses."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from kepm_plugin.folder import data_folder, lock_folder

HERE: Final = Path(__file__).parent
EXAMPLES: Final = HERE.parents[1] / "plugins"
PLUGIN: Final = "FrozenWorker"
BUILD_WITHIN: Final = 280.0

Finished = subprocess.CompletedProcess[bytes]


def run_python(
    *arguments: str | Path,
    cwd: Path,
    timeout: float = 30,
    first: Path = EXAMPLES,
    variables: dict[str, str] | None = None,
) -> Finished:
    """Run Python where the example can be imported, and what is in the folder `first`."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(first), str(EXAMPLES)])} | (variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Frozen:
    """An agent root with the frozen plugin, which no other test and no plugin of the user's shares anything with."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "Plugins" / f"{PLUGIN}.json"

    @property
    def folder(self) -> Path:
        return self.root / "Plugins" / "bin" / PLUGIN

    @property
    def program(self) -> Path:
        return self.folder / PLUGIN


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Generator[Frozen]:
    """The one build of the session. Its root has a space in its path."""
    place = Frozen(tmp_path_factory.mktemp("bundle") / "agent root")
    target = HERE / "frozen_worker" / "worker.py"
    elsewhere = place.root.parent
    done = run_python(
        *("-m", "kepm_plugin", "package", target, "-o", place.root),
        cwd=elsewhere,
        timeout=BUILD_WITHIN,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == [str(place.manifest), str(place.program)]
    yield place
    # Launched as on an endpoint, the plugin keeps its files where it would there.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEPM_")}
    shutil.rmtree(data_folder(PLUGIN, None, kept), ignore_errors=True)
    (lock_folder() / f"{PLUGIN}.lock").unlink(missing_ok=True)
