"""What a passage needs of the gate that let it in."""

from typing import Protocol

from kepm_plugin.devagent.deliveries import Deliveries
from kepm_plugin.devagent.engine import Engine
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.rights import Rights
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.devagent.traffic import Crossing


class Host(Protocol):
    """The gate, as far as one connection sees it; `embedded` is the model of the broker."""

    engine: Engine
    terminal: Terminal
    faults: Faults
    deliveries: Deliveries
    embedded: bool

    def anybody(self, topic: str) -> bool:
        """Tell whether a client has subscribed to a topic."""
        ...

    def report(self, crossing: Crossing) -> None:
        """Record what crossed."""
        ...

    def rights_of(self, plugin_id: str) -> Rights:
        """Return what a plugin declared."""
        ...
