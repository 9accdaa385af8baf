"""`make demo`: a plugin under a local agent, as real processes, from its manifest to a killed broker.

Shows each step and checks what it shows; the first that fails ends the demo with exit code 1. The environment may hold

    DEMO_SCAN_ROOT   folder to scan, with a set-uid file in it; without it, a temporary one with such a file
    DEMO_BROKER      `mosquitto` or `nats`; mosquitto where it is installed unless given
"""

import json
import os
import shlex
import signal
import stat
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from demo_agent import PATIENCE, Agent, Failed, agent_on, check, heading, kepm_plugin, show

from kepm_plugin.errors import KepmError

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "plugins" / "my_worker"
TARGET = EXAMPLE / "my_worker.py"
PLUGIN = "MyWorker"
OPERATOR = "Operator"
SHOWN = 20
"""Findings of each kind that are shown; of set-uid files, all are."""


def scan(root: Path) -> dict[str, Any]:
    """Send `scan`, show the response, and return its report."""
    answer = json.loads(kepm_plugin("send", PLUGIN, "scan", "--root", root, "--timeout", 2 * PATIENCE))
    if not answer["ok"]:
        raise Failed(f"the response to `scan` is {answer}")
    report: dict[str, Any] = answer["result"]
    show(json.dumps(answer | {"result": report | {"findings": "below"}}, ensure_ascii=False))
    left = {"set-uid": len(report["findings"]), "set-gid": SHOWN, "world-writable": SHOWN}
    for one in report["findings"]:
        if left[one["kind"]]:
            left[one["kind"]] -= 1
            show(json.dumps(one, ensure_ascii=False))
    return report


def set_uid_files(report: dict[str, Any], folder: Path) -> list[Path]:
    """Return the set-uid files of a report that are really there, below a folder."""
    found: list[Path] = []
    for path in (Path(one["path"]) for one in report["findings"] if one["kind"] == "set-uid"):
        with suppress(OSError):  # gone meanwhile, or a name that JSON cannot carry
            if path.is_relative_to(folder) and path.lstat().st_mode & stat.S_ISUID:
                found.append(path)
    return found


def plant(folder: Path) -> Path:
    """Make a set-uid file under a random name."""
    path = folder / f"planted-{token_hex(8)}"
    path.touch()
    path.chmod(0o4755)
    return path


def show_manifest() -> None:
    """The manifest comes out of the code."""
    text = kepm_plugin("gen-manifest", TARGET)
    show(text)
    topics = json.loads(text)["metadata"]["mqttTopics"]
    check("KeeperLogger" in topics["publish"], "it may publish to KeeperLogger")
    check(f"{PLUGIN}/Commands/scan" in topics["subscribe"], "it may receive the command `scan`")
    kepm_plugin("gen-manifest", TARGET, "--check", EXAMPLE / f"{PLUGIN}.json")
    check(True, "the manifest in the repository has not drifted from it")


def show_launch(agent: Agent) -> None:
    """The agent launches the plugin, which connects."""
    agent.until(rf"^agent .*launched {PLUGIN}: process \d+")
    agent.until(r"^agent .*ready:")
    agent.until(rf"^{PLUGIN} .*state\.changed.*state=running")
    state = agent.control.plugins()[PLUGIN]
    check(state["status"] == "Healthy", f"process {state['pid']} runs {PLUGIN}")


def show_scan(agent: Agent, folder: Path) -> None:
    """A command is answered."""
    mark = agent.mark()
    for key, value in {"limit": 1000, "seconds": 30, "root": folder, "depth": 64}.items():
        kepm_plugin("settings", "set", PLUGIN, f"scan.{key}", value, "--root", agent.root)
    agent.until(rf"^{PLUGIN} .*settings\.changed.*\bdepth\b", mark)  # the last that was set
    report = scan(agent.root)
    check(report["root"] == str(folder), f"it is about {folder}")
    found = set_uid_files(report, folder)
    if not found:
        raise Failed(f"the response lists no set-uid file that is there, below {folder}; has DEMO_SCAN_ROOT one?")
    check(True, f"it lists {len(found)} set-uid file(s) that are really there")


def show_records(agent: Agent) -> None:
    """What the plugin logged has come through the broker to the agent's log file."""
    agent.until(rf"^{PLUGIN} .*handler\.done.*Commands/scan")
    lines = (agent.root / "Log" / "KeeperLogger.log").read_text(encoding="utf-8").splitlines()
    records = [line["record"] for line in map(json.loads, lines) if line["plugin"] == PLUGIN]
    for record in records:
        show(json.dumps(record, ensure_ascii=False))
    handled = [record for record in records if record.get("topic") == f"{PLUGIN}/Commands/scan"]
    check(bool(handled), "one of them is about the scan")


def show_setting(agent: Agent, folder: Path) -> None:
    """A setting that a program changes over HTTPS is what the next scan goes by."""
    planted = plant(folder)
    mark = agent.mark()
    agent.control.start(OPERATOR)
    agent.until(rf"^agent .*API: {PLUGIN}: setting scan\.root was written", mark)
    agent.until(rf"^{OPERATOR} .*PUT scan\.root", mark)
    agent.until(rf"^{PLUGIN} .*settings\.changed.*\broot\b", mark)
    value = kepm_plugin("settings", "get", PLUGIN, "scan.root", "--root", agent.root).strip()
    check(value == str(folder), f"the agent has scan.root = {value}")
    report = scan(agent.root)
    check(set_uid_files(report, folder) == [planted], f"the next scan is about {folder}")


def show_kill(agent: Agent) -> None:
    """The broker is killed and comes back."""
    before = agent.control.describe()["engine_pid"]
    mark = agent.mark()
    agent.control.kill_engine()
    agent.until(r"^agent .*ended; clients are dropped", mark)
    agent.until(r"^agent .*accepts again", mark)
    agent.until(rf"^{PLUGIN} .*state=running", mark)
    after = agent.control.describe()
    check(
        after["engine_pid"] not in (None, before), f"{after['engine']} was process {before}, is {after['engine_pid']}"
    )


def show_answer(agent: Agent, launches: int) -> None:
    """The same plugin process answers again."""
    report = scan(agent.root)
    check(report["findings"] != [] and not any(one["new"] for one in report["findings"]), "the scan has nothing new")
    answer = json.loads(kepm_plugin("send", PLUGIN, "reset", "--root", agent.root))
    show(json.dumps(answer))
    check(answer["ok"] and answer["result"]["forgotten"] == len(report["findings"]), "`reset` forgets the report")
    check(agent.control.plugins()[PLUGIN]["launches"] == launches, f"{PLUGIN} is the process that it was before")


def register_operator(root: Path, folder: Path) -> None:
    """Add a plugin to the agent root that is launched by hand, and changes the folder that is scanned."""
    program = [str(HERE / "demo_operator.py"), "{KeeperApiBaseUrl}", PLUGIN, "scan.root", str(folder)]
    manifest: dict[str, object] = {
        "id": OPERATOR,
        "name": "The demo's operator",
        "version": "1.0.0",
        "pluginType": "Executable",
        "executablePath": sys.executable,
        "arguments": shlex.join(program),
        "supportedPlatforms": ["Linux", "macOS"],
        "Subscription": {"Topic": OPERATOR, "Qos": 1, "CleanSession": True},
        "metadata": {"mqttRole": [], "mqttTopics": {"publish": [], "subscribe": []}},
        "startupPriority": 80,
        "autoStart": False,
        "executionContext": "Service",
        "requiresMonitoring": False,
        "autoRestart": False,
    }
    (root / "Plugins").mkdir()
    (root / "Plugins" / f"{OPERATOR}.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def demo(work: Path) -> None:
    """Show every step."""
    root, folder, other = work / "agent", work / "scanned", work / "scanned later"
    for path in (root, folder, other):
        path.mkdir()
    if given := os.environ.get("DEMO_SCAN_ROOT"):
        folder = Path(given).resolve()
        if not folder.is_dir():
            raise Failed(f"DEMO_SCAN_ROOT is {given}, which is no folder")
    else:
        plant(folder)
    register_operator(root, other)
    heading(1, "The manifest, generated from the code")
    show_manifest()
    heading(2, "A local agent launches the plugin")
    with agent_on(TARGET, root, os.environ.get("DEMO_BROKER") or "auto") as agent:
        show_launch(agent)
        launches = agent.control.plugins()[PLUGIN]["launches"]
        heading(3, f"The command `scan`, for {folder}")
        show_scan(agent, folder)
        heading(4, "The plugin's records, as they reached KeeperLogger")
        show_records(agent)
        heading(5, "A setting is changed through the agent's API, and the next scan goes by it")
        show_setting(agent, other)
        heading(6, "The broker is killed, and comes back")
        show_kill(agent)
        heading(7, "The plugin answers again")
        show_answer(agent, launches)
        heading(8, "The end")
        check(agent.end() == 0, "the agent has stopped when asked to")
        check(agent.all_gone(), "nothing that it started is left")


def main() -> int:
    """Run the demo; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # an exit ends the agent, these by themselves would not
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportUnknownMemberType]
    try:
        with TemporaryDirectory(prefix="kepm-demo-", ignore_cleanup_errors=True) as work:
            demo(Path(work).resolve())
    except (Failed, KepmError) as exc:
        print(f"\ndemo: FAILED: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print("\nThe demo has shown all of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
