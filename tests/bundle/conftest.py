"""A plugin that is frozen once for all tests, by the command that a packager uses."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from kepm_plugin.folder import data_folder, lock_folder

HERE: Final = Path(__file__).parent
PLUGIN: Final = "FrozenWorker"
BUILD_WITHIN: Final = 280.0

Finished = subprocess.CompletedProcess[bytes]
Python = Callable[..., Finished]


def run_python(*arguments: str | Path, cwd: Path = HERE, timeout: float = 30, **variables: str) -> Finished:
    """Run Python where `frozen_worker` and the example can be imported."""
    path = os.pathsep.join([variables.pop("PYTHONPATH", ""), str(HERE.parents[1] / "plugins")]).strip(os.pathsep)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | variables,
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
