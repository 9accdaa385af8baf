"""The agent root on disk: folders, ports in `appsettings.json`, the lock that keeps a second agent out."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from kepm_plugin.contract import (
    APPSETTINGS_FILE,
    APPSETTINGS_HTTPS_PORT,
    APPSETTINGS_SECTION,
    DEFAULT_BROKER_HOST,
    PLUGINS_FOLDER,
)
from kepm_plugin.errors import AgentError, UsageError

PORTS: Final = range(1024, 65536)
"""Ports that the agent takes (Plugin & Task Settings)."""

WAITING: Final = 128
"""Connections that the system keeps for a listener until it takes them."""

MQTT_SECTION: Final = "MqttBrokerSettings"
MQTT_PORT: Final = "Port"
"""Where the broker's port is kept. The section is documented (Config Settings), the key is assumed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one agent root, which is absolute."""

    root: Path

    @property
    def plugins(self) -> Path:
        """Where the plugins' JSON files are."""
        return self.root / PLUGINS_FOLDER

    @property
    def appsettings(self) -> Path:
        """The agent's configuration."""
        return self.root / APPSETTINGS_FILE

    @property
    def private(self) -> Path:
        """What this local agent keeps for itself, owner only."""
        return self.root / ".dev"

    @property
    def storage(self) -> Path:
        """The unified storage of settings."""
        return self.private / "storage.json"

    @property
    def control(self) -> Path:
        """Where `send` and `settings` find a running agent."""
        return self.private / "control.json"

    @property
    def log(self) -> Path:
        """The log file of the KeeperLogger component."""
        return self.root / "Log" / "KeeperLogger.log"

    def create(self) -> None:
        """Make the folders that are missing.

        Raises:
            UsageError: They cannot be made.
        """
        try:
            self.plugins.mkdir(parents=True, exist_ok=True)
            self.log.parent.mkdir(exist_ok=True)
            self.private.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise UsageError(f"agent root {self.root}: {exc.strerror}; name a folder that you may write to") from exc


def write_private(path: Path, text: str) -> None:
    """Write a file at once and owner-only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def read_appsettings(path: Path) -> dict[str, Any]:
    """Return the content of `appsettings.json`, empty where there is none.

    Raises:
        UsageError: The file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path}: {exc}; correct the file or remove it") from exc
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not a JSON object; correct the file or remove it")
    return content  # pyright: ignore[reportUnknownVariableType]


def _entry(content: dict[str, Any], name: str) -> tuple[str, Any]:
    """Return the key that spells `name` in any casing, and its value or None."""
    key = next((key for key in content if key.lower() == name.lower()), name)
    return key, content.get(key)


def configured_port(path: Path, section: str, key: str) -> int | None:
    """Return a port from `appsettings.json`, or None where none is set.

    Raises:
        UsageError: It is no port between 1024 and 65535 (Plugin & Task Settings).
    """
    _, group = _entry(read_appsettings(path), section)
    value = _entry(group, key)[1] if isinstance(group, dict) else None  # pyright: ignore[reportUnknownArgumentType]
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value not in PORTS:
        raise UsageError(f"{path}: {section}:{key} is {value!r}; it must be a number from {PORTS[0]} to {PORTS[-1]}")
    return value


def check_ports(https_port: int | None, mqtt_port: int | None) -> None:
    """Check ports that were chosen, None where any free one will do.

    Raises:
        UsageError: One is out of range, or both are the same.
    """
    for port, purpose in ((https_port, "the API"), (mqtt_port, "MQTT")):
        if port is not None and port not in PORTS:
            raise UsageError(f"port {port} for {purpose} is none; give a number from {PORTS[0]} to {PORTS[-1]}")
    if https_port is not None and https_port == mqtt_port:
        raise UsageError(f"port {https_port} is to be for the API and for MQTT; choose another for one of them")


def keep_ports(path: Path, https_port: int, mqtt_port: int) -> None:
    """Write both ports into `appsettings.json`, so that plugins find them and a restart keeps them."""
    content = read_appsettings(path)
    before = json.dumps(content)
    for section, key, port in (
        (APPSETTINGS_SECTION, APPSETTINGS_HTTPS_PORT, https_port),
        (MQTT_SECTION, MQTT_PORT, mqtt_port),
    ):
        section_key, found = _entry(content, section)
        group = cast("dict[str, Any]", found if isinstance(found, dict) else {})
        group[_entry(group, key)[0]] = port
        content[section_key] = group
    if json.dumps(content) != before:
        write_private(path, json.dumps(content, indent=2) + "\n")


def listener(port: int | None, purpose: str, *, listening: bool = True) -> socket.socket:
    """Return a socket that listens on loopback, or only holds the port, on any free port where none is given.

    Raises:
        AgentError: The port is taken.
    """
    # The protocol by its number: asyncio sets TCP_NODELAY on connections of such a listener alone. Without it an answer
    # waits for the acknowledgement of what went before, which is up to 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two listeners share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((DEFAULT_BROKER_HOST, port or 0))
        if listening:
            sock.listen(WAITING)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        raise AgentError(
            f"port {port} for {purpose} is not free ({exc.strerror}); end what listens there, or choose another port"
        ) from exc
    return sock


@contextmanager
def locked(layout: Layout) -> Generator[None]:
    """Hold the agent root for this process.

    Raises:
        AgentError: Another live agent holds it.
    """
    path = layout.private / "lock"
    with path.open("a+", encoding="ascii") as file:
        try:
            _lock(file.fileno())
        except OSError as exc:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise AgentError(
                f"agent root {layout.root} is in use by a local agent with process id {holder}; "
                "end that one, or name another root"
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield  # the system gives the lock back when the file is closed, or this process is killed


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others may then still read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
