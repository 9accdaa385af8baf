"""What can be chosen about a local agent."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TextIO

from kepm_plugin.devagent.engines import Choice, Limits
from kepm_plugin.devagent.likeness import Likeness

BrokerModel = Literal["classic", "embedded"]
StatusForm = Literal["settings-hash", "file-hash", "none"]

REAL_FIRST_CHECK: Final = 60.0
REAL_INTERVAL: Final = 30.0
"""Seconds until the agent's first check of plugins, and between checks (Timers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """Options of the local agent. Times are in seconds.

    Attributes:
        root: Agent root; it is made where it is missing. None: a temporary one, removed at the end.
        temporary: The root is the caller's to remove; should this agent be killed, the guard does it.
        broker: Engine behind the gate. `auto`: mosquitto where it is installed, else NATS.
        broker_model: What the broker is like for a plugin. `classic`: as the engine is. `embedded`: as MQTTnet's server
            is by default, whichever the engine (docs/faults.md).
        unlimited_queue: mosquitto queues as many messages for a client as come, in place of 1,000, and saves them once
            a minute, in place of at each change: should it be killed, sessions go back by as much.
        https_port: None: `Settings:KestrelHttpsPort` of the root's `appsettings.json`, else a free one that is then
            kept there.
        mqtt_port: None: `MqttBrokerSettings:Port` (assumed name), else as above.
        first_check: From start to the first check of plugins; the agent's own is 60.
        monitor_interval: Between checks; the agent's own is 30. A plugin that keeps ending by itself is launched
            again ever more rarely, up to 30 s apart, which is ours: the agent's way is not documented.
        real_intervals: Use the agent's own times for both.
        stop_grace: From SIGTERM to SIGKILL when a plugin is stopped.
        trust_children: Trust what a launched process launches, too. The agent probably does not.
        leave_orphans: Should this agent be killed, the guard ends the engine and leaves the plugins alive.
        logging_level: What the agent's own setting `system.logging.level` says, which plugins follow. The documented
            default is "Warning"; a developer wants to see more.
        like: What it is like where the vendor's pages leave it open.
        status: What the status of a plugin's settings has, whose form is not documented: a hash over all of them,
            hashes of the file alone, or nothing, as it is answered with 404.
        registration_delay: How long after its launch a process is still refused.
        mqtt5: Whether MQTT 5 is let through.
        color: None: where standard output is a terminal.
        echo: Takes each line of the terminal, without colour, in place of standard output.
        stream: Takes the terminal's output in place of standard output.
        watch: Folders, or files, by plugin id: a change below them restarts the plugin.
        before_reload: Awaited with the plugin id before such a restart, to write the manifest anew. It may raise
            `KepmError`: the plugin is left as it is then, and the reason is shown.
    """

    root: Path | None = None
    temporary: bool = False
    broker: Choice = "auto"
    broker_model: BrokerModel = "classic"
    unlimited_queue: bool = False
    https_port: int | None = None
    mqtt_port: int | None = None
    first_check: float = 0.5
    monitor_interval: float = 0.5
    real_intervals: bool = False
    stop_grace: float = 15.0
    trust_children: bool = False
    leave_orphans: bool = False
    logging_level: str = "Information"
    like: Likeness = field(default_factory=Likeness)
    status: StatusForm = "settings-hash"
    registration_delay: float = 0.0
    mqtt5: bool = True
    color: bool | None = None
    echo: Callable[[str], None] | None = None
    stream: TextIO | None = None
    watch: Mapping[str, Sequence[Path]] = field(default_factory=dict[str, Sequence[Path]])
    before_reload: Callable[[str], Awaitable[None]] | None = None

    @property
    def limits(self) -> Limits:
        """What the engine itself limits; the embedded model leaves nothing to it."""
        if self.broker_model == "embedded":
            return "none"
        return "no queue limit" if self.unlimited_queue else "default"

    @property
    def checks(self) -> tuple[float, float]:
        """Seconds to the first check of plugins, and between checks."""
        return (REAL_FIRST_CHECK, REAL_INTERVAL) if self.real_intervals else (self.first_check, self.monitor_interval)
