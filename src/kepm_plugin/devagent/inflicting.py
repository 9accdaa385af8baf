"""Puts faults in force: what has to happen at once, and what has to be undone when one is over."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil

from kepm_plugin.devagent.certificate import self_signed, use
from kepm_plugin.devagent.door import Door
from kepm_plugin.devagent.engine import Engine
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.faults import (
    Fault,
    HalfOpen,
    MovePort,
    NewCertificate,
    RefuseTcp,
    Reset,
    SuspendEngine,
    SuspendPlugin,
)
from kepm_plugin.devagent.gate import Gate
from kepm_plugin.devagent.layout import Layout, keep_ports
from kepm_plugin.devagent.orchestrator import Orchestrator
from kepm_plugin.devagent.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflictor:
    """The parts of a running agent that faults are about."""

    faults: Faults
    gate: Gate
    door: Door
    context: ssl.SSLContext
    engine: Engine
    orchestrator: Orchestrator
    storage: Storage
    layout: Layout
    https_port: int

    async def inflict(self, fault: Fault) -> int:
        """Put a fault in force and return its number.

        Raises:
            UnknownPlugin: It is about a plugin that is not there.
            AgentError: The port to move to is taken.
        """
        if fault.plugin is not None:
            self.orchestrator.entry(fault.plugin)
        match fault:
            case Reset() | HalfOpen():
                number = self.faults.arm(fault)
                self.gate.suffer()
                return number
            case NewCertificate():
                use(self.context, *self_signed())
            case MovePort():
                await self._move(fault.port)
            case RefuseTcp():
                await self.door.shut()
                return self._arm(fault, self.door.open)
            case SuspendEngine():
                self.engine.suspend()
                return self._arm(fault, self.engine.resume)
            case SuspendPlugin():
                process = self.orchestrator.process(str(fault.plugin))
                _tell(process.suspend)
                return self._arm(fault, partial(_tell, process.resume))
            case _:
                pass
        return self.faults.arm(fault)

    async def _move(self, port: int | None) -> None:
        await self.door.move(port)
        keep_ports(self.layout.appsettings, self.https_port, self.door.port)
        self.storage.move_broker(self.door.port)
        self.gate.drop_all("the gate moved to another port")

    def _arm(self, fault: Fault, undo: Callable[[], None]) -> int:
        """Put a fault in force that is undone when no other of its kind lasts."""

        def over() -> None:
            if self.faults.find(type(fault), fault.plugin) is None:
                undo()

        return self.faults.arm(fault, over)


def _tell(change: Callable[[], None]) -> None:
    """Suspend or resume a process that may be gone."""
    try:
        change()
    except psutil.Error:
        return
