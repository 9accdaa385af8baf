"""`dev` and `send`: the local agent, and what is asked of a running one."""

import json
import shlex
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from kepm_plugin.contract import API_BASE_TOKEN, PLUGINS_FOLDER
from kepm_plugin.contractfile import read_contract
from kepm_plugin.errors import ManifestError, UsageError
from kepm_plugin.manifest import Manifest, manifest_of, read_manifest, to_json
from kepm_plugin.target import address, load

from ._manifest import write

if TYPE_CHECKING:
    from kepm_plugin.devagent import ControlClient

NOT_OK: Final = 1
"""Exit code of `send` where the plugin answered, and the answer does not say `"ok": true`."""

Broker = Literal["auto", "mosquitto", "nats"]
Level = Literal["Trace", "Debug", "Information", "Warning", "Error", "Critical"]

_WRITTEN_BY_DEV: Final = "-u -m kepm_plugin run "
_PRIVATE: Final = ".dev"  # the local agent's own folder in its root


@dataclass(frozen=True, slots=True, kw_only=True)
class DevArguments:
    """What the command line says about a local agent."""

    root: Path | None = None
    broker: Broker = "auto"
    reload: bool = False
    leave_orphans: bool = False
    real_intervals: bool = False
    trust_children: bool = False
    log_level: Level = "Information"
    https_port: int | None = None
    mqtt_port: int | None = None
    contract: Path | None = None
    like: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Launch:
    """One target, and how the local agent launches it."""

    manifest: Manifest
    address: str
    source: Path
    """Folder whose changes matter."""

    @staticmethod
    def of(target: str, root: Path, contract: Path | None) -> "_Launch":
        kind = load(target)
        where, private = address(kind), root / _PRIVATE
        arguments = (
            f"{_WRITTEN_BY_DEV}{shlex.quote(where)} --keeper-api-base {API_BASE_TOKEN} "
            f"--data-dir {shlex.quote(str(private / 'data'))} --lock-dir {shlex.quote(str(private / 'locks'))}"
        )
        if contract is not None:
            arguments += f" --contract {shlex.quote(str(contract))}"
        manifest = manifest_of(
            kind.declarations(), executable=str(Path(sys.executable).absolute()), arguments=arguments
        )
        return _Launch(manifest, where, _source(kind.__module__))

    async def regenerate(self, plugins: Path) -> None:
        """Write the manifest anew from the source as it is now, which only a fresh interpreter sees.

        Raises:
            ManifestError: The source is wrong, or its id has changed.
        """
        import anyio

        made = await anyio.run_process(
            [
                *(sys.executable, "-m", "kepm_plugin", "gen-manifest", self.address),
                *("--executable", self.manifest.get("executablePath")),
                f"--arguments={self.manifest.get('arguments')}",
            ],
            check=False,
        )
        if made.returncode != 0:
            lines = made.stderr.decode(errors="replace").strip().splitlines() or ["gen-manifest failed"]
            raise ManifestError(lines[-1].removeprefix("kepm-plugin: "))
        manifest = read_manifest(made.stdout)
        if manifest.id != self.manifest.id:
            raise ManifestError(f"the id is now {manifest.id!r} instead of {self.manifest.id!r}; start dev anew")
        write(manifest, plugins)


def dev(targets: Sequence[str], arguments: DevArguments) -> None:
    """Run a local agent until it is asked to stop, with the targets as plugins and what else its root holds.

    Raises:
        UsageError: A target or the root is wrong, or the `dev` extra is missing.
        PluginDefinitionError: A target's code is wrong.
        AgentError: The agent cannot start.
    """
    import asyncio

    with _dev_extra():
        from kepm_plugin.devagent import DevOptions, Likeness, serve
    if not targets and arguments.root is None:
        raise UsageError("name a target, or an agent root with --root")
    contract = None if arguments.contract is None else arguments.contract.absolute()
    if contract is not None:
        read_contract(contract)  # so that what is wrong is said here, before anything is launched
    with (
        TemporaryDirectory(prefix="kepm-agent-", ignore_cleanup_errors=True)
        if arguments.root is None
        else (nullcontext(str(arguments.root))) as name
    ):
        root = Path(name).resolve()
        launches = _prepared(targets, root, contract)
        options = DevOptions(
            root=root,
            temporary=arguments.root is None,
            broker=arguments.broker,
            https_port=arguments.https_port,
            mqtt_port=arguments.mqtt_port,
            real_intervals=arguments.real_intervals,
            trust_children=arguments.trust_children,
            leave_orphans=arguments.leave_orphans,
            logging_level=arguments.log_level,
            like=Likeness.of(arguments.like),
            watch=_watched(launches, root) if arguments.reload else {},
            before_reload=_regenerate(launches, root / PLUGINS_FOLDER),
        )
        asyncio.run(serve(options))


def send(plugin: str, command: str, payload: str | None, root: Path | None, timeout: float) -> int:
    """Send a command to a plugin of a running local agent, and print its response.

    Return the exit code: 0 where the response says `"ok": true`, else `NOT_OK`.

    Raises:
        UsageError: The payload is no JSON object, the plugin has no such command, or the `dev` extra is missing.
        AgentError: No agent, no such plugin, or no answer.
    """
    try:
        content: object = json.loads(payload) if payload is not None else {}
    except ValueError as exc:
        raise UsageError(f'the payload is no JSON: {exc}; write it as in \'{{"root": "/etc"}}\'') from exc
    if not isinstance(content, dict):
        raise UsageError('the payload is not a JSON object; write it as in \'{"root": "/etc"}\'')
    client = client_of(root, plugin)
    answer = client.send(plugin, command, cast("dict[str, Any]", content), timeout)
    print_json(answer)
    return 0 if answer.get(client.describe()["like"]["answer_ok"]) is True else NOT_OK


def print_json(value: Mapping[str, Any]) -> None:
    """Print JSON for people: indented, in colour on a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        from rich import print_json as print_in_colour

        print_in_colour(text)
    else:
        print(text)


def client_of(root: Path | None, plugin: str | None) -> "ControlClient":
    """Return the local agent that is meant.

    Raises:
        UsageError: Several may be meant, or the `dev` extra is missing.
        AgentError: None runs.
    """
    with _dev_extra():
        from kepm_plugin.devagent import ControlClient
    return ControlClient.find(root.absolute() if root is not None else None, plugin)


@contextmanager
def _dev_extra() -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("kepm_plugin"):
            raise
        raise UsageError(f"the local agent needs {exc.name}, which is not installed; install kepm-plugin[dev]") from exc


def _prepared(targets: Sequence[str], root: Path, contract: Path | None) -> dict[str, _Launch]:
    """Write the targets' manifests into the root, all or, where one would replace somebody else's file, none."""
    launches: dict[str, _Launch] = {}
    for target in targets:
        launch = _Launch.of(target, root, contract)
        if launches.setdefault(launch.manifest.id, launch) is not launch:
            raise UsageError(f"two targets have the id {launch.manifest.id!r}; leave one of them out")
    plugins = root / PLUGINS_FOLDER
    for plugin_id, launch in launches.items():
        _check_replaceable(plugins / f"{plugin_id}.json", launch.manifest)
    for launch in launches.values():
        write(launch.manifest, plugins)
    return launches


def _check_replaceable(path: Path, manifest: Manifest) -> None:
    if not path.exists():
        return
    if str(read_manifest(path).get("arguments", "")).startswith(_WRITTEN_BY_DEV) or path.read_bytes() == to_json(
        manifest
    ):
        return
    raise UsageError(
        f"{path} is not from `dev` and is left alone; leave the target out to launch the plugin by that file, remove "
        "it, or choose another --root"
    )


def _source(module: str) -> Path:
    """Return the folder of a module's top package, or the one in which a single file lies."""
    file = Path(str(sys.modules[module].__file__)).resolve()
    folder = file.parent
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _watched(launches: Mapping[str, _Launch], root: Path) -> dict[str, Sequence[Path]]:
    for launch in launches.values():
        if root.is_relative_to(launch.source):
            raise UsageError(
                f"--reload watches {launch.source}, and the agent root {root} in it changes all the time; choose a "
                "--root outside of it"
            )
    return {plugin_id: [launch.source] for plugin_id, launch in launches.items()}


def _regenerate(launches: Mapping[str, _Launch], plugins: Path) -> Callable[[str], Awaitable[None]]:
    async def regenerate(plugin_id: str) -> None:
        await launches[plugin_id].regenerate(plugins)

    return regenerate
