"""The commands and their options; with `_letters_app`, the importer of typer."""

from pathlib import Path
from typing import Annotated

import typer

from kepm_plugin._version import __version__
from kepm_plugin.errors import UsageError
from kepm_plugin.target import load

from . import _deadletters, _declared, _dev, _letters_app, _manifest, _package, _run, _settings_commands

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="package.module:Class or path/file.py:Class; ':Class' may be left out where the file defines one plugin.",
        show_default=False,
    ),
]
Platforms = Annotated[
    list[str] | None,
    typer.Option("--platform", metavar="PLATFORM", help=_manifest.PLATFORM),
]
Executable = Annotated[str | None, typer.Option(metavar="PATH", help=_manifest.EXECUTABLE)]
Arguments = Annotated[str | None, typer.Option(metavar="TEXT", help=_manifest.ARGUMENTS)]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help=_manifest.OUTPUT)]
Check = Annotated[Path | None, typer.Option(metavar="FILE", help=_manifest.CHECK)]
JobsRoot = Annotated[Path | None, typer.Option("--root", metavar="DIR", help=_manifest.JOBS_ROOT)]
Files = Annotated[list[Path] | None, typer.Argument(metavar="FILE", help=_manifest.FILES, show_default=False)]
Root = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Root of the local agent; needed where several agents of yours have the plugin."),
]
PluginId = Annotated[str, typer.Argument(metavar="PLUGIN", help="The plugin's id.", show_default=False)]
ApiBase = Annotated[str | None, typer.Option("--keeper-api-base", metavar="URL", help=_run.API_BASE)]
CaBundle = Annotated[Path | None, typer.Option(metavar="FILE", help=_run.CA_BUNDLE)]
DataDir = Annotated[Path | None, typer.Option(metavar="DIR", help=_run.DATA_DIR)]
LockDir = Annotated[Path | None, typer.Option(metavar="DIR", help=_run.LOCK_DIR)]
ContractFile = Annotated[Path | None, typer.Option("--contract", metavar="FILE", help=_run.CONTRACT)]
PeerOption = Annotated[_run.Peer, typer.Option(help=_run.PEER)]


def _typer(text: str) -> typer.Typer:
    return typer.Typer(
        help=text,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _typer("Write, check and run plugins for Keeper Endpoint Privilege Manager.")
settings = _typer("The settings of a plugin under `dev`, and those that its code declares.")
app.add_typer(settings, name="settings")
deadletters = _typer(_deadletters.ABOUT)
_letters_app.add_commands(deadletters)
app.add_typer(deadletters, name="deadletters")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kepm-plugin {__version__}")
        raise typer.Exit


@app.callback()
def _(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command("gen-manifest")
def gen_manifest(
    target: Target,
    output: Output = None,
    platform: Platforms = None,
    executable: Executable = None,
    arguments: Arguments = None,
    check: Check = None,
) -> None:
    """Write a plugin's manifest, <Id>.json, from its code; or compare a file with the code."""
    wanted = _manifest.ManifestArguments(
        output=output, platform=platform or (), executable=executable, arguments=arguments, check=check
    )
    raise typer.Exit(_manifest.gen_manifest(load(target), wanted))


@app.command()
def validate(files: Files = None, root: JobsRoot = None) -> None:
    """Check manifest files, each for itself and all against each other."""
    raise typer.Exit(_manifest.validate(files or (), root))


@app.command()
def schema(
    of: Annotated[
        _manifest.Described, typer.Argument(metavar="[manifest|contract]", help="Of manifests, or contract files.")
    ] = "manifest",
) -> None:
    """Print the JSON Schema of manifests, or of contract files."""
    _manifest.print_schema(of)


@app.command()
def run(
    target: Target,
    keeper_api_base: ApiBase = None,
    ca_bundle: CaBundle = None,
    data_dir: DataDir = None,
    lock_dir: LockDir = None,
    peer: PeerOption = "warn",
    contract: ContractFile = None,
) -> None:
    """Run a plugin against an agent."""
    arguments = _run.RunArguments(
        keeper_api_base=keeper_api_base,
        ca_bundle=ca_bundle,
        data_dir=data_dir,
        lock_dir=lock_dir,
        peer=peer,
        contract=contract,
    )
    raise typer.Exit(_run.run_plugin(load(target), arguments))


@app.command()
def package(
    target: Target,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTION", help="For PyInstaller, after '--'; absolute paths.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Laid out as an agent root.")
    ] = _package.AGENT_ROOT,
) -> None:
    """Build a plugin's bundle: a program that needs no Python, and its manifest."""
    _package.package(target, output, options or ())


@app.command()
def dev(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET", help="Plugins to launch, besides those of the root.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Agent root; a temporary one by default.")] = None,
    broker: Annotated[_dev.Broker, typer.Option(help="auto: mosquitto where it is installed, else NATS.")] = "auto",
    reload: Annotated[bool, typer.Option("--reload", help="Restart a target when its source changes.")] = False,
    leave_orphans: Annotated[
        bool, typer.Option("--leave-orphans", help="Should the agent be killed, its plugins live on.")
    ] = False,
    real_intervals: Annotated[
        bool,
        typer.Option("--real-intervals", help="Check plugins as seldom as the agent does: after 60 s, every 30 s."),
    ] = False,
    trust_children: Annotated[
        bool, typer.Option("--trust-children", help="Trust what a plugin's process launches, too.")
    ] = False,
    log_level: Annotated[
        _dev.Level, typer.Option(help="What the agent's system.logging.level says, which plugins follow.")
    ] = "Information",
    https_port: Annotated[
        int | None, typer.Option(metavar="N", min=1024, max=65535, help="Port of the API; kept in the root.")
    ] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(metavar="N", min=1024, max=65535, help="Port of the broker; kept in the root.")
    ] = None,
    contract: Annotated[
        Path | None, typer.Option("--contract", metavar="FILE", help="Contract file that the targets are run with.")
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="NAME=VALUE", help="What the agent is like; once for each (docs/contract.md)."),
    ] = None,
) -> None:
    """Run a local agent that launches plugins as an agent would; end it with Ctrl-C."""
    arguments = _dev.DevArguments(
        root=root,
        broker=broker,
        reload=reload,
        leave_orphans=leave_orphans,
        real_intervals=real_intervals,
        trust_children=trust_children,
        log_level=log_level,
        https_port=https_port,
        mqtt_port=mqtt_port,
        contract=contract,
        like=like or (),
    )
    _dev.dev(targets or [], arguments)


@app.command()
def send(
    plugin: PluginId,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="What follows <Id>/Commands/.", show_default=False)],
    payload: Annotated[str | None, typer.Argument(metavar="JSON", help="A JSON object.", show_default=False)] = None,
    root: Root = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0.0, help="For the answer.")] = 10.0,
) -> None:
    """Send a command to a plugin under `dev`, and print the response; exit with 1 unless it says "ok": true."""
    raise typer.Exit(_dev.send(plugin, command, payload, root, timeout))


@settings.command("get")
def settings_get(
    plugin: PluginId,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="One value alone.", show_default=False)] = None,
    root: Root = None,
) -> None:
    """Print the merged settings of a plugin."""
    _settings_commands.get_settings(plugin, key, root)


@settings.command("set", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
def settings_set(
    plugin: PluginId,
    key: Annotated[str, typer.Argument(metavar="KEY", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", show_default=False)],
    root: Root = None,
) -> None:
    """Store a value over the one of the file."""
    _settings_commands.set_setting(plugin, key, value, root)


@settings.command("revert")
def settings_revert(
    plugin: Annotated[str | None, typer.Argument(metavar="PLUGIN", help="The plugin's id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Revert all plugins.")] = False,
    root: Root = None,
) -> None:
    """Go back to the values of the file."""
    if everything == (plugin is not None):
        raise UsageError("name one plugin, or give --all to revert every one")
    _settings_commands.revert_settings(plugin, root)


@settings.command("status")
def settings_status(plugin: PluginId, root: Root = None) -> None:
    """Print which settings differ from the file."""
    _settings_commands.settings_status(plugin, root)


@settings.command("diff")
def settings_diff(
    plugin: PluginId,
    as_json: Annotated[bool, typer.Option("--json", help=_declared.JSON)] = False,
    ask: Annotated[bool, typer.Option("--ask", help=_settings_commands.ASK)] = False,
    root: Root = None,
) -> None:
    """Print each setting in storage, file and code side by side; a star marks what is not the same."""
    _settings_commands.diff(plugin, root, as_json=as_json, run=ask)


@settings.command("declared", help=_declared.ABOUT)
def settings_declared(
    target: Target,
    as_json: Annotated[bool, typer.Option("--json", help=_declared.JSON)] = False,
    values: Annotated[bool, typer.Option("--values", help=_declared.VALUES)] = False,
) -> None:
    """Print what a plugin's code declares."""
    _declared.print_declared(load(target), as_json=as_json, values=values)
