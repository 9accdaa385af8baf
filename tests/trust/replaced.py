"""The agent starts anew, with another certificate: what is connected lives on, what connects is checked anew."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from kepm_plugin.agent import open_agent
from kepm_plugin.errors import AgentError
from kepm_plugin.link import History
from tests.trust.attempts import PATIENCE, PLENTY, Dialling, Outcome, Watcher, Way, exit_code, first_of, link_of
from tests.trust.cases import Kit
from tests.trust.certificates import make
from tests.trust.impostor import Listener


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """One row: `bundle` says whether one is used, `renewed` whether it was exported again."""

    name: str
    bundle: bool
    renewed: bool = False
    accepted: bool

    async def https(self, kit: Kit) -> Outcome:
        """Ask twice over one connection, with the replacement in between, and once over a new one."""
        bundle = self._bundle(kit)
        with Listener(kit.agent.context()) as listener:
            async with open_agent(f"https://127.0.0.1:{listener.port}", ca_bundle=bundle, timeout=PATIENCE) as agent:
                await agent.settings("MyWorker")
                self._replace(kit, listener, bundle)
                await agent.settings("MyWorker")
                assert listener.connections == 1, "what is connected lives on"
                listener.hang_up()
                try:
                    await agent.settings("MyWorker")
                except AgentError as error:
                    return Outcome(error, False, error.exit_code)
            assert listener.connections > 1
        return Outcome()

    async def mqtt(self, kit: Kit) -> Outcome:
        """Keep a link up, replace the certificate, and end the connection."""
        bundle = self._bundle(kit)
        history = History(logging.getLogger("tests.trust"))
        with Listener(kit.agent.context()) as listener:
            way = Way("127.0.0.1", listener.port, bundle)
            dialling, watcher = Dialling(way), Watcher()

            async def replace() -> None:
                await watcher.is_up.wait()
                self._replace(kit, listener, bundle)
                assert history.report()["lost"] == 0, "what is connected lives on"
                watcher.is_up, dialling.tries = anyio.Event(), 0
                listener.hang_up()
                await first_of(watcher.is_up.wait, dialling.again.wait)

            await first_of(link_of(dialling, watcher, PLENTY, history).run, replace)
            assert history.report()["certificateChanged"] == (0 if dialling.first else 1)
            if dialling.first is None:
                return Outcome()
            return Outcome(dialling.first, dialling.again.is_set(), await exit_code(way))

    def _bundle(self, kit: Kit) -> Path | None:
        if not self.bundle:
            return None
        bundle = kit.folder / "exported.pem"
        bundle.write_bytes(kit.agent.file.read_bytes())
        return bundle

    def _replace(self, kit: Kit, listener: Listener, bundle: Path | None) -> None:
        new = make(kit.folder)
        listener.context.load_cert_chain(new.pair)
        if self.renewed and bundle is not None:
            bundle.write_bytes(new.file.read_bytes())


REPLACED: Final = [
    Replaced(name="the certificate is replaced: without a bundle", bundle=False, accepted=True),
    Replaced(name="the certificate is replaced: with the old bundle", bundle=True, accepted=False),
]
