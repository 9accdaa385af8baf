"""What a plugin's process does without: each module costs time at every start, and memory as long as it runs."""

import shlex
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from kepm_plugin.manifest import manifest_of, to_json
from tests.e2e import modules_plugin
from tests.e2e.agent_process import agent_process
from tests.e2e.modules_plugin import Modules

ABSENT: Final = {
    "structlog": "comes with an author's first import of it, and is configured then",
    "rich": "shows tracebacks to developers; structlog takes it where it is installed, with pygments",
    "pygments": "colours for rich",
    "click": "httpx takes it for a command line of its own, where it is installed",
    "typer": "the framework's own command line; a plugin's is argparse",
    "filelock": "one system call locks the file of an instance",
    "psutil": "only where /proc is not; importing it takes longer than what it is asked",
    "pydantic": "only where an author's payloads are its models",
    "cryptography": "the local agent's certificate",
    "starlette": "the local agent's API",
    "uvicorn": "serves it",
    "watchfiles": "reloads plugins under the local agent",
    "pytest": "tests",
    "tomllib": "only where there is a contract file",
    "multiprocessing": "nothing of ours is a worker",
    "argparse": "only where options are not pairs of name and value",
    "gettext": "argparse",
    "difflib": "only where a name is close to one that is known",
    "encodings.idna": "an address goes through no rules of international names",
    "stringprep": "the tables of these rules",
    "secrets": "os.urandom() does for a salt and for a client id",
    "kepm_plugin.bundle": "packaging",
    "kepm_plugin.devagent": "the local agent",
    "kepm_plugin.testing": "tests",
    "kepm_plugin.manifest": "only where a deployed manifest can be compared with the code",
    "kepm_plugin.cli._app": "the framework's own command line",
    "kepm_plugin.cli._plugin_commands": "the plugin's other commands: gen-manifest, deadletters, settings, validate",
    "kepm_plugin.cli._deadletters": "one of these",
    "kepm_plugin.cli._manifest": "another one",
}
"""Modules, with those below them, and why they are not there."""

PRESENT: Final = {"aiomqtt", "anyio", "httpx", "kepm_plugin.runtime", "msgspec", "sqlite3"}
"""So that the list is known to be one."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Let a plugin run, and tell."""
    folder = tmp_path_factory.mktemp("modules")
    root = folder / "root"
    (root / "Plugins").mkdir(parents=True)
    folders = ("--data-dir", str(folder / "data"), "--lock-dir", str(folder / "lock"))
    script = shlex.join([modules_plugin.__file__, "run", *folders, "--keeper-api-base"])
    manifest = manifest_of(
        Modules.declarations(), executable=sys.executable, arguments=f"{script} {{KeeperApiBaseUrl}}"
    )
    Path(root, "Plugins", "Modules.json").write_bytes(to_json(manifest))
    with agent_process(root, measured=False) as agent:  # measuring coverage would import what is looked for
        answer = agent.control.send("Modules", "tell")
    assert answer["ok"]
    result: dict[str, Any] = answer["result"]
    return result


def test_a_running_plugin_has_imported_nothing_that_it_does_not_use(told: dict[str, Any]) -> None:
    modules = set(told["modules"])
    assert modules >= PRESENT
    found = [name for name in sorted(modules) for absent in ABSENT if name == absent or name.startswith(f"{absent}.")]
    assert found == []


def test_a_collection_does_not_look_through_what_was_there_at_the_start(told: dict[str, Any]) -> None:
    assert told["frozen"] > 10_000
    assert told["collecting"]
