"""What an author's module and a manifest cost to load: no network library."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NETWORK: Final = {"aiomqtt", "anyio", "httpcore", "httpx", "paho", "structlog"}


def loaded(*arguments: str) -> tuple[set[str], str]:
    """Return the top-level packages that a Python process imported before it ended well, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, done.stdout


@pytest.mark.parametrize("name", ["anyio", "httpx"])
def test_the_list_of_what_was_loaded_names_a_library_that_was(name: str) -> None:
    names, _ = loaded("-c", f"def f():\n    import {name}\nf()")
    assert name in names


def test_importing_what_authors_use_loads_no_network_library() -> None:
    names, _ = loaded("-c", "from kepm_plugin import *")
    assert "kepm_plugin" in names
    assert names & NETWORK == set()


def test_generating_a_manifest_loads_no_network_library() -> None:
    names, printed = loaded("-m", "kepm_plugin", "gen-manifest", "plugins/my_worker/my_worker.py")
    assert "MyWorker/Commands/scan" in printed
    assert names & NETWORK == set()
