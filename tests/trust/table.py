"""The cases played over both transports, and the table that says what came of them."""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from kepm_plugin.errors import AgentUnreachable, KepmError
from kepm_plugin.peer import _owner as sockets  # pyright: ignore[reportPrivateUsage]
from tests.trust.attempts import Outcome, Way, over_https, over_mqtt
from tests.trust.cases import CASES, ME, Case, Kit
from tests.trust.replaced import REPLACED

HEAD: Final = ("case", "HTTPS", "MQTT", "what is said")


@dataclass(frozen=True)
class Played:
    """What came of a case over one transport; `heard` is what was sent over TLS."""

    outcome: Outcome
    heard: bytes = b""
    warnings: tuple[str, ...] = ()


async def play(case: Case, kit: Kit, attempt: Callable[[Way], Awaitable[Outcome]]) -> Played:
    """Have the case's listener listen, and connect to it as a plugin does."""
    sockets._warn_once.cache_clear()  # pyright: ignore[reportPrivateUsage]
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("kepm_plugin.peer")
    log.addHandler(handler)
    try:
        with case.listen(kit) as listener:
            outcome = await attempt(Way(case.host, listener.port, case.bundle(kit), case.peer, case.patience))
    finally:
        log.removeHandler(handler)
    return Played(outcome, listener.heard, tuple(warnings))


def words(said: KepmError | None, kit: Kit) -> str:
    """Return an error's text without what differs from run to run, and without what was asked."""
    if said is None:
        return ""
    text = re.sub(r"^(GET \S+|the broker at \S+:\d+):? ", "", str(said))
    text = re.sub(r"(?<=[\w\]]):\d{4,5}\b", ":PORT", text.replace(str(kit.folder), "FOLDER").replace(ME, "ADDRESS"))
    return text.replace("self signed", "self-signed")  # as OpenSSL 1.1.1 has it


def over(outcome: Outcome) -> str:
    """Return what becomes of a plugin that meets this at its start, or for as long as its link is tried."""
    if outcome.said is None:
        return "accepted"
    kind = "failed" if isinstance(outcome.said, AgentUnreachable) else "refused"
    return f"{kind}; {'tried again, then ' if outcome.again else ''}exit code {outcome.ends}"


@dataclass(frozen=True)
class Row:
    """What came of one case."""

    name: str
    https: Played
    mqtt: Played

    def cells(self, kit: Kit) -> tuple[str, ...]:
        """Return the row as the table has it."""
        https, mqtt = words(self.https.outcome.said, kit), words(self.mqtt.outcome.said, kit)
        said = https if https == mqtt else f"{https} MQTT: {mqtt}"
        return self.name, over(self.https.outcome), over(self.mqtt.outcome), said


async def rows(kit: Kit) -> list[Row]:
    """Play everything."""
    made = [Row(case.name, await play(case, kit, over_https), await play(case, kit, over_mqtt)) for case in CASES]
    for one in REPLACED:
        made.append(Row(one.name, Played(await one.https(kit)), Played(await one.mqtt(kit))))
    return made


def text(made: list[Row], kit: Kit) -> str:
    """Return the table as it stands in docs/security.md."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells(kit) for row in made)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)
