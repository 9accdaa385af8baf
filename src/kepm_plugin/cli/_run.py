"""`run`: from options to the runtime. A plugin's own process reads its options with the standard library alone."""

import gc
import sys
from argparse import ArgumentParser
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, cast

from msgspec import Struct

from kepm_plugin._importing import importing
from kepm_plugin.plugin import Plugin

Peer = Literal["warn", "require"]

API_BASE: Final = "The agent's HTTPS API, as in https://127.0.0.1:6889; found out where it is not given."
CA_BUNDLE: Final = "Certificates (PEM) that verify the agent; without them the owner of its sockets is checked."
DATA_DIR: Final = "Where the plugin's folder lies; the platform's state folder for services unless given."
LOCK_DIR: Final = "Where the lock lies that lets one copy of the plugin handle messages; for local agents."
CONTRACT: Final = "What the agent does otherwise than is assumed (TOML); found out where it is not given."
PEER: Final = "What to do where the owner of the agent's sockets cannot be told."


class RunArguments(Struct, frozen=True, kw_only=True):
    """What the command line says about a run."""

    keeper_api_base: str | None = None
    ca_bundle: Path | None = None
    data_dir: Path | None = None
    lock_dir: Path | None = None
    peer: Peer = "warn"
    contract: Path | None = None


def parsed(program: str, arguments: Sequence[str]) -> RunArguments:
    """Read the options of `run`; the process exits with 2 where they are wrong."""
    parser = ArgumentParser(prog=f"{program} run", description="Run the plugin against an agent.", allow_abbrev=False)
    parser.add_argument("--keeper-api-base", metavar="URL", help=API_BASE)
    parser.add_argument("--ca-bundle", metavar="FILE", type=Path, help=CA_BUNDLE)
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help=DATA_DIR)
    parser.add_argument("--lock-dir", metavar="DIR", type=Path, help=LOCK_DIR)
    parser.add_argument("--contract", metavar="FILE", type=Path, help=CONTRACT)
    parser.add_argument("--peer", choices=("warn", "require"), default="warn", help=PEER)
    return RunArguments(**vars(parser.parse_args(arguments)))


def run_plugin(kind: type[Plugin], arguments: RunArguments) -> int:
    """Run a plugin until it is asked to stop; return the exit code."""
    with importing(), _without("click", "rich"):
        from kepm_plugin.runtime import RunOptions, run

        gc.freeze()  # What is there stays: a full collection looks through what comes later, and takes 2 ms, not 20.

    options = RunOptions(
        api_base=arguments.keeper_api_base,
        ca_bundle=arguments.ca_bundle,
        data_dir=arguments.data_dir,
        lock_dir=arguments.lock_dir,
        peer=arguments.peer,
        contract=arguments.contract,
    )
    return run(kind, options)


@contextmanager
def _without(*names: str) -> Generator[None]:
    """Import, inside, as if some libraries were not installed.

    structlog would load rich, 4 MiB, to show tracebacks in colour to developers, and httpx its command line by click;
    nothing in this process does either.
    """
    modules = cast("dict[str, Any]", sys.modules)
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))  # None is "not installed", for whoever tries to import it
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
