"""A plugin that is frozen once for all tests, by the command that a packager uses."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from filelock import FileLock

from kepm_plugin.folder import data_folder, lock_folder, make_private

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
    """An agent root with the frozen plugin."""

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
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
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
    return place


@contextmanager
def its_place_of_the_user() -> Generator[None]:
    """What the plugin has outside its root when it is launched as on an endpoint: for one suite at a time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEPM_")}
    locks = make_private(lock_folder())
    with FileLock(locks / f"{PLUGIN}.tests", timeout=BUILD_WITHIN):
        try:
            yield
        finally:
            shutil.rmtree(data_folder(PLUGIN, None, kept), ignore_errors=True)
            for kind in ("lock", "holder"):
                (locks / f"{PLUGIN}.{kind}").unlink(missing_ok=True)
