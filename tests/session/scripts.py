"""The plugin of the session's tests: handlers of each kind that do what the message's entry in the ledger says."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from kepm_plugin import Handler, Message, Plugin

Body = dict[str, object]


@dataclass(frozen=True)
class Lane:
    """What a handler promises, as far as the model has to know."""

    topic: str
    field: str | None = None
    """Where the identity of a message is."""
    ordered: bool = True
    retries: int = 0

    @property
    def command(self) -> bool:
        return self.field == "correlationId"


LANES = {
    "Plain": Lane("P/plain"),
    "Keyed": Lane("P/keyed/{key}", retries=2),
    "Timed": Lane("P/timed", ordered=False, retries=1),
    "Known": Lane("P/known", "id"),
    "One": Lane("P/Commands/one", "correlationId", retries=1),
    "Many": Lane("P/Commands/many", "correlationId", ordered=False),
}


@cache
def plugin(*, journal: bool, clean: bool) -> type[Plugin]:
    """Return the plugin's class."""
    attributes = {"id": "P", "journal": journal, "clean_session": clean, "echo": False, "heartbeat": None}
    patience = {"link_budget": 1e9, "settings_interval": 3600.0, "drain": 2.0}
    kind: type[Plugin] = type("P", (Plugin,), attributes | patience)

    class Scripted(Handler[Any]):
        async def handle(self, message: Message[Body]) -> object:
            return await self.plugin.process.handle(message)

    @kind.topic("plain")
    class Plain(Scripted):
        pass

    @kind.topic("keyed/{key}")
    class Keyed(Scripted):
        order_by = "key"
        concurrency = 2
        retries = 2

    @kind.topic("timed")
    class Timed(Scripted):
        concurrency = 2
        timeout = 3.0
        retries = 1

    @kind.topic("known")
    class Known(Scripted):
        dedupe = "id"

    @kind.command("one")
    class One(Scripted):
        retries = 1

    @kind.command("many")
    class Many(Scripted):
        concurrency = 2
        timeout = 3.0

    return kind
