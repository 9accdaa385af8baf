"""Where and when something was measured, and what it was."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.process import HERE
from tests.benchmarks.stage import Pythons

PACKAGES: Final = (
    "aiomqtt",
    "paho-mqtt",
    "gmqtt",
    "faststream",
    "zmqtt",
    "fastapi-mqtt",
    "msgspec",
    "httpx",
    "structlog",
    "anyio",
)

ASK: Final = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def described(pythons: Pythons, broker: str) -> dict[str, Any]:
    """Return date, machine and versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "processors": os.cpu_count(),
            "load": list(os.getloadavg()),
        },
        "revision": _output("git", "-C", str(HERE), "describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "mosquitto": broker,
        "ours": _versions(pythons.ours),
        "peers": _versions(pythons.peers),
    }


def line(found: dict[str, Any]) -> str:
    """Return the same in short."""
    machine, peers = found["machine"], found["peers"]
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    return (
        f"{found['date']}, {found['revision']}, {machine['processor']} x {machine['processors']}, "
        f"load {machine['load'][0]:.1f}, Python {found['python']}, mosquitto {found['mosquitto']}, {versions}"
    )


def _versions(python: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(_output(python, "-c", ASK, *PACKAGES))
    return found


def _processor() -> str:
    told = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in told if line.startswith("model name")), platform.machine())


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
