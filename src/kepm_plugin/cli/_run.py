"""`run`: from options to the runtime. A plugin's own process reads its options with the standard library alone."""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
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


class _Option(Struct, frozen=True):
    """One option of `run`: what its value is called, makes and may be; any text where no choices are given."""

    metavar: str | None
    make: Callable[[str], object]
    help: str
    choices: tuple[str, ...] = ()


_OPTIONS: Final[Mapping[str, _Option]] = {
    "--keeper-api-base": _Option("URL", str, API_BASE),
    "--ca-bundle": _Option("FILE", Path, CA_BUNDLE),
    "--data-dir": _Option("DIR", Path, DATA_DIR),
    "--lock-dir": _Option("DIR", Path, LOCK_DIR),
    "--contract": _Option("FILE", Path, CONTRACT),
    "--peer": _Option(None, str, PEER, ("warn", "require")),
}


def parsed(program: str, arguments: Sequence[str]) -> RunArguments:
    """Read the options of `run`; the process exits with 2 where they are wrong."""
    plain = _plain(arguments)
    return RunArguments(**(_asked(program, arguments) if plain is None else plain))


def _plain(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return what pairs of an option and its value say, as an agent gives them; None where there is anything else.

    With that, and with what is wrong, argparse is asked: a start that is as usual does without its 3 ms.
    """
    found: dict[str, Any] = {}
    rest = iter(arguments)
    for name in rest:
        option, value = _OPTIONS.get(name), next(rest, "-")
        if option is None or value.startswith("-") or (option.choices and value not in option.choices):
            return None
        found[name.removeprefix("--").replace("-", "_")] = option.make(value)
    return found


def _asked(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    from argparse import ArgumentParser

    parser = ArgumentParser(prog=f"{program} run", description="Run the plugin against an agent.", allow_abbrev=False)
    for name, one in _OPTIONS.items():
        parser.add_argument(name, metavar=one.metavar, type=one.make, help=one.help, choices=one.choices or None)
    given = vars(parser.parse_args(arguments))
    return {name: value for name, value in given.items() if value is not None}


def run_plugin(kind: type[Plugin], arguments: RunArguments) -> int:
    """Run a plugin until it is asked to stop; return the exit code."""
    # A full collection looks through what comes later, and takes 2 ms, not 20.
    with importing(frozen=True), _without("click"):
        from kepm_plugin.runtime import RunOptions, run

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
def _without(name: str) -> Generator[None]:
    """Import, inside, as if a library were not installed.

    httpx would load its own command line by click, where that is there; nothing in this process uses it.
    """
    modules = cast("dict[str, Any]", sys.modules)
    if name in modules:
        yield
        return
    modules[name] = None  # "not installed", for whoever tries to import it
    try:
        yield
    finally:
        del modules[name]
