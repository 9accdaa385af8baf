"""The commands of one plugin but for `run`, by the standard library alone: they are in every bundle, on every endpoint.

typer would bring rich and pydantic along, which makes a bundle half as large again.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from kepm_plugin.plugin import Plugin

from . import _deadletters, _declared, _manifest


def run_command(kind: type[Plugin], given: Sequence[str]) -> int:
    """Do what the arguments of a plugin's process say; return the exit code.

    The process exits with 2 where the arguments are wrong.
    """
    options = vars(_parser(kind).parse_args(given))
    command = options.pop("command")
    if command == "deadletters":
        _deadletters.run_parsed(kind, options)
        return 0
    if command == "settings":
        _declared.print_declared(kind, as_json=options["json"], values=options["values"])
        return 0
    if command == "validate":
        return _manifest.validate(options["files"], options["root"])
    return _manifest.gen_manifest(kind, _manifest.ManifestArguments(**options))


def _parser(kind: type[Plugin]) -> ArgumentParser:
    parser = ArgumentParser(
        prog=kind.id, description=f"{kind.name or kind.id} {kind.version}. Without a command, the plugin runs."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="run against an agent, as without a command", add_help=False)
    manifest = commands.add_parser(
        "gen-manifest",
        help="write the plugin's manifest, <Id>.json; or compare a file with the code",
        allow_abbrev=False,
    )
    manifest.add_argument("-o", "--output", metavar="DIR", type=Path, help=_manifest.OUTPUT)
    manifest.add_argument("--platform", metavar="PLATFORM", action="append", default=[], help=_manifest.PLATFORM)
    manifest.add_argument("--executable", metavar="PATH", help=_manifest.EXECUTABLE)
    manifest.add_argument("--arguments", metavar="TEXT", help=_manifest.ARGUMENTS)
    manifest.add_argument("--check", metavar="FILE", type=Path, help=_manifest.CHECK)
    checked = commands.add_parser("validate", help="check manifest files", allow_abbrev=False)
    checked.add_argument("files", metavar="FILE", type=Path, nargs="*", help=_manifest.FILES)
    checked.add_argument("--root", metavar="DIR", type=Path, help=_manifest.JOBS_ROOT)
    _declared.add_options(
        commands.add_parser(
            "settings", help="list the plugin's settings", description=_declared.ABOUT, allow_abbrev=False
        )
    )
    letters = commands.add_parser(
        "deadletters", help="what could not be handled: list, show, replay or purge", description=_deadletters.ABOUT
    )
    _deadletters.add_commands(letters)
    return parser
