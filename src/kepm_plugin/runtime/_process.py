"""A plugin's process: the real surroundings, and the exit code."""

import asyncio
import logging
import os
import sys
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from msgspec import Struct

from kepm_plugin.agent import find_api_base, open_agent
from kepm_plugin.broker import BrokerAddress, ProtocolChoice, SessionOptions, open_session
from kepm_plugin.contract import Contract
from kepm_plugin.contractfile import InForce, beside, find_contract
from kepm_plugin.errors import KepmError
from kepm_plugin.folder import data_folder
from kepm_plugin.instance import RETRY, Launcher, instance_lock, refuse_job
from kepm_plugin.link import Deliver
from kepm_plugin.logs import LogPipe, logging_to
from kepm_plugin.message import Publication
from kepm_plugin.peer import PeerPolicy
from kepm_plugin.plugin import Plugin
from kepm_plugin.stall import stall_guard
from kepm_plugin.store import Limits, Store, memory_store, open_store

from ._deployed import warn_of_denials
from ._masking import Masking
from ._serve import Serving
from ._stop import CUT_OFF, Stopping, other_threads, say, stop_on_signals
from ._surroundings import Outcome, Surroundings

log = logging.getLogger("kepm_plugin.runtime")


class RunOptions(Struct, frozen=True, kw_only=True):
    """How to run a plugin; what is None is found out."""

    api_base: str | None = None
    """The agent's HTTPS API."""
    ca_bundle: Path | None = None
    """Certificates that verify the agent; without them the owner of its sockets is checked."""
    data_dir: Path | None = None
    """Below which the plugin's folder lies."""
    lock_dir: Path | None = None
    """Where the lock lies that lets one copy handle; for tests and local agents."""
    peer: PeerPolicy = "warn"
    """What to do where nobody can tell who listens."""
    contract: Contract | Path | None = None
    """What the agent is like, or the file that says so; looked for where it is None (docs/contract.md)."""
    start_budget: float = 60.0
    """Seconds for which the agent's refusals right after the start are not final."""


def run(kind: type[Plugin], options: RunOptions | None = None) -> int:
    """Run a plugin until it is asked to stop, and return the process's exit code (`errors.EXIT_CODES`).

    What went wrong is told in one line on standard error.
    """
    options = options or RunOptions()
    launcher = Launcher.remember()
    backend: dict[str, Any] = {}
    if sys.platform == "win32":  # aiomqtt needs add_reader, which the default loop of Windows lacks.
        backend["loop_factory"] = asyncio.SelectorEventLoop
    stopping, masking, code = Stopping(), Masking(), 1
    masking.install()
    try:
        refuse_job(os.environ)
        in_force = _contract(kind, options.contract)
        outcome = anyio.run(
            partial(_serve, kind, options, in_force, launcher, stopping, masking), backend_options=backend
        )
        code = _told(outcome.error, masking) if outcome.error is not None else CUT_OFF if outcome.cut_off else 0
    except KepmError as exc:
        code = _told(exc, masking)
    finally:
        stopping.finish()
        if other_threads():
            # A thread of a handler cannot be stopped, and the interpreter would wait for it.
            if (error := sys.exc_info()[1]) is not None:
                masking.say_error(error)
            logging.shutdown()
            os._exit(code)
    return code


def _contract(kind: type[Plugin], given: Contract | Path | None) -> InForce:
    if isinstance(given, Contract):
        return InForce(given)
    executable, frozen = Path(sys.executable), bool(getattr(sys, "frozen", False))
    program = beside(sys.modules.get(kind.__module__), frozen=frozen, executable=executable)
    return InForce.of(find_contract(given, os.environ, program))


async def _serve(
    kind: type[Plugin], options: RunOptions, in_force: InForce, launcher: Launcher, stopping: Stopping, masking: Masking
) -> Outcome:
    pipe, stop, contract = LogPipe(), anyio.Event(), in_force.contract
    serving: Serving | None = None
    async with AsyncExitStack() as stack:
        # Installed first, so that the deadline is kept whatever the author's code does while it is loaded.
        stack.enter_context(
            stop_on_signals(stopping, lambda: kind.drain if serving is None else serving.knobs.drain, stop.set)
        )
        logs = stack.enter_context(
            logging_to(pipe, source=kind.id, contract=contract, secrets=lambda: masking.secrets())
        )
        logs.fallback(True)
        if in_force.file is not None:
            log.info("contract.loaded", extra={"file": str(in_force.file), "changes": contract.changes()})
        guard = stack.enter_context(stall_guard(say))
        base = find_api_base(options.api_base, os.environ, Path(sys.executable))
        agent = await stack.enter_async_context(
            open_agent(base, ca_bundle=options.ca_bundle, peer=options.peer, contract=contract)
        )
        lock = stack.enter_context(instance_lock(kind.id, options.lock_dir))
        around = Surroundings(
            agent=agent,
            open_session=_opener(kind, options, contract),
            open_store=partial(_open_store, kind, options),
            pipe=pipe,
            logs=logs,
            contract=contract,
            stop=stop,
            try_lock=lock.try_acquire,
            orphaned=launcher.gone,
            alive=lock.mark,
            press=lock.press,
            ending=stopping.count_down,
            stalls=lambda: guard.stalls,
            stall=guard.bound,
            settings_folder=data_folder(kind.id, options.data_dir, os.environ) if kind.journal else None,
            start_budget=options.start_budget,
            lock_retry=RETRY,
        )
        serving = Serving(kind, around)
        masking.secrets = serving.secrets
        warn_of_denials(serving.declarations, Path(sys.executable))
        outcome = await serving.run()
        log.info("plugin.stopped")
        logs.fallback(True)
    return outcome


def _opener(kind: type[Plugin], options: RunOptions, contract: Contract) -> Any:
    choice = ProtocolChoice()
    # One for all connections of this run, or a kept session would never be found again.
    client_id = contract.client_id_for(kind.id, process=os.getpid(), random=os.urandom(4).hex())

    def opener(host: str, port: int, will: Publication | None, deliver: Deliver) -> Any:
        session = SessionOptions(
            client_id=client_id,
            clean=kind.clean_session,
            will=will,
            ca_bundle=options.ca_bundle,
            peer=options.peer,
        )
        return open_session(BrokerAddress(host=host, port=port), session, choice, deliver)

    return opener


def _open_store(kind: type[Plugin], options: RunOptions, *, limits: Limits) -> AbstractContextManager[Store]:
    if not kind.journal:
        return memory_store(limits=limits)
    return open_store(data_folder(kind.id, options.data_dir, os.environ), limits=limits)


def _told(error: KepmError, masking: Masking) -> int:
    say(f"kepm-plugin: {masking.text(str(error))}")
    return error.exit_code
