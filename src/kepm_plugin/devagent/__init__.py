"""The local agent that authors develop against: launches plugins from their manifests, as a KEPM agent would.

It guesses where the vendor's pages are silent, and says so where it does. What passes here is not thereby proved
against a real agent.
"""

from kepm_plugin.devagent.agent import DevAgent
from kepm_plugin.devagent.control_client import ControlClient
from kepm_plugin.devagent.deliveries import Acknowledged, Deliveries
from kepm_plugin.devagent.faults import (
    ApiCut,
    ApiHangs,
    ApiLate,
    ApiRefused,
    ApiSlow,
    CloseBeforeConnack,
    DropPuback,
    Duplicate,
    Fault,
    HalfOpen,
    MovePort,
    Mute,
    NewCertificate,
    RefuseConnack,
    RefuseTcp,
    Reset,
    Slow,
    SuspendEngine,
    SuspendPlugin,
)
from kepm_plugin.devagent.likeness import Likeness
from kepm_plugin.devagent.logger import LogRecord
from kepm_plugin.devagent.options import DevOptions
from kepm_plugin.devagent.orchestrator import PluginState
from kepm_plugin.devagent.running import dev_agent, serve
from kepm_plugin.devagent.traffic import Crossing

__all__ = [
    "Acknowledged",
    "ApiCut",
    "ApiHangs",
    "ApiLate",
    "ApiRefused",
    "ApiSlow",
    "CloseBeforeConnack",
    "ControlClient",
    "Crossing",
    "Deliveries",
    "DevAgent",
    "DevOptions",
    "DropPuback",
    "Duplicate",
    "Fault",
    "HalfOpen",
    "Likeness",
    "LogRecord",
    "MovePort",
    "Mute",
    "NewCertificate",
    "PluginState",
    "RefuseConnack",
    "RefuseTcp",
    "Reset",
    "Slow",
    "SuspendEngine",
    "SuspendPlugin",
    "dev_agent",
    "serve",
]
