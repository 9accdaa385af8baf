"""What a plugin's process returns, and the one line that it says, for each way in which it cannot serve."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kepm_plugin.errors import EXIT_CODES, KepmError
from tests.conftest import Certificate

SCRIPT = """
import sys
from pathlib import Path
from kepm_plugin import Handler, Message, Plugin, Settings, setting
from kepm_plugin.runtime import RunOptions, run

class Needs(Settings):
    depth: int = setting(key="depth", ge=1)
    token: str = setting(secret=True, default="", max_length=6)

class Exiting(Plugin):
    id = "Exiting"
    settings: Needs
    link_budget = 0.3

@Exiting.command("scan")
class Scan(Handler[Exiting]):
    async def handle(self, message: Message[dict[str, object]]) -> None: ...

work = Path(sys.argv[2])
sys.exit(run(Exiting, RunOptions(api_base=sys.argv[1], data_dir=work, lock_dir=work / "lock", start_budget=0.5)))
"""
SYSTEM = {"broker.host": "127.0.0.1", "broker.port": "1"}


@contextmanager
def agent(certificate: Certificate, answers: Mapping[str, tuple[int, object]]) -> Generator[str]:
    """An agent's API that gives fixed answers; yields its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path.rpartition("/")[2]]
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, name="agent")
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def run_plugin(base: str, work: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, base, str(work)],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | environment,
        check=False,
    )


OWN = {"depth": "3"}


CASES: list[tuple[Mapping[str, tuple[int, object]], int, list[str]]] = [
    ({"Exiting": (403, ""), "KeeperPrivilegeManager": (403, "")}, 68, ["403", "agent"]),
    ({"Exiting": (404, ""), "KeeperPrivilegeManager": (200, SYSTEM)}, 69, ["404", "Exiting"]),
    ({"Exiting": (200, "<html>"), "KeeperPrivilegeManager": (200, SYSTEM)}, 70, ["PluginSettings/Exiting"]),
    ({"Exiting": (200, {}), "KeeperPrivilegeManager": (200, SYSTEM)}, 66, ["depth"]),
    ({"Exiting": (200, {"depth": "0"}), "KeeperPrivilegeManager": (200, SYSTEM)}, 66, ["depth", "1"]),
    ({"Exiting": (200, OWN), "KeeperPrivilegeManager": (200, {"broker.port": "x"})}, 70, ["broker.port"]),
    ({"Exiting": (200, OWN), "KeeperPrivilegeManager": (200, SYSTEM)}, 72, ["0.3 s"]),
]


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    CASES,
    ids=["refused", "unknown", "no JSON", "missing", "out of range", "no port", "no broker"],
)
def test_each_way_not_to_serve_has_its_exit_code_and_one_line(
    certificate: Certificate,
    tmp_path: Path,
    answers: Mapping[str, tuple[int, object]],
    code: int,
    words: list[str],
) -> None:
    with agent(certificate, answers) as base:
        ended = run_plugin(base, tmp_path)
    assert (ended.returncode, ended.stdout) == (code, "")
    said = [line for line in ended.stderr.splitlines() if line.startswith("kepm-plugin: ")]
    assert len(said) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert all(word in said[0] for word in words), said


def test_without_an_agent_the_plugin_says_so_after_its_start_budget(tmp_path: Path) -> None:
    ended = run_plugin("https://127.0.0.1:1", tmp_path)
    assert ended.returncode == 67
    assert "127.0.0.1:1" in ended.stderr


def test_a_secret_that_breaks_its_rule_is_not_shown(certificate: Certificate, tmp_path: Path) -> None:
    own = OWN | {"token": "hunter2-hunter2"}
    with agent(certificate, {"Exiting": (200, own), "KeeperPrivilegeManager": (200, SYSTEM)}) as base:
        ended = run_plugin(base, tmp_path)
    assert ended.returncode == 66
    assert "token" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_a_plugin_that_is_started_as_a_job_task_ends_at_once(tmp_path: Path) -> None:
    ended = run_plugin("https://127.0.0.1:1", tmp_path, KEEPER_JOB_ID="nightly")
    assert ended.returncode == 75
    assert "nightly" in ended.stderr


def every_error(root: type[KepmError] = KepmError) -> list[type[KepmError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_each_errors_exit_code_is_in_the_table(kind: type[KepmError]) -> None:
    assert kind.exit_code in EXIT_CODES
