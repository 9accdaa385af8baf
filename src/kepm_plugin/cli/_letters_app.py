"""The options of `deadletters`; with `_app`, the importer of typer."""

from pathlib import Path
from typing import Annotated

import typer

from kepm_plugin.errors import UsageError
from kepm_plugin.target import load

from . import _deadletters as letters
from ._choice import Chosen, Place
from ._run import DATA_DIR

_TARGET = "TARGET, as for `run`; not where --id is given."

PluginOption = Annotated[
    str | None, typer.Option("--id", metavar="PLUGIN", help="The plugin's id, where its code is not here.")
]
DataDir = Annotated[Path | None, typer.Option(metavar="DIR", help=DATA_DIR)]
TopicFilter = Annotated[str | None, typer.Option("--topic", metavar="FILTER", help=letters.TOPIC)]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help=letters.REASON)]
Everything = Annotated[bool, typer.Option("--all", help=letters.EVERY)]
TargetAlone = Annotated[str | None, typer.Argument(metavar="TARGET", help=_TARGET, show_default=False)]
TargetAndNumber = Annotated[
    list[str] | None,
    typer.Argument(metavar="TARGET ID", help=f"{_TARGET} And the letter's number.", show_default=False),
]
TargetAndNumbers = Annotated[
    list[str] | None,
    typer.Argument(metavar="TARGET [ID…]", help=f"{_TARGET} {letters.IDS}", show_default=False),
]


def add_commands(app: typer.Typer) -> None:
    """Add the four commands to the group `deadletters`."""
    app.command("list", help=letters.LIST)(_list)
    app.command("show", help=letters.SHOW)(_show)
    app.command("replay", help=letters.REPLAY)(_replay)
    app.command("purge", help=letters.PURGE)(_purge)


def _list(
    target: TargetAlone = None,
    plugin: PluginOption = None,
    data_dir: DataDir = None,
    topic: TopicFilter = None,
    reason: Reason = None,
    as_json: Annotated[bool, typer.Option("--json", help=letters.JSON)] = False,
) -> None:
    place, rest = _place([target] if target else [], plugin, data_dir)
    if rest:
        raise UsageError(f"{rest[0]!r}: give a TARGET or --id, not both")
    letters.list_letters(place, Chosen(topic=topic, reason=reason), as_json=as_json)


def _show(
    words: TargetAndNumber = None,
    plugin: PluginOption = None,
    data_dir: DataDir = None,
    raw: Annotated[bool, typer.Option("--raw", help=letters.RAW)] = False,
) -> None:
    place, numbers = _place(words or [], plugin, data_dir)
    if len(numbers) != 1:
        raise UsageError("give the number of one dead letter, as 'deadletters list' shows it")
    letters.show(place, numbers[0], raw=raw)


def _replay(
    words: TargetAndNumbers = None,
    plugin: PluginOption = None,
    data_dir: DataDir = None,
    everything: Everything = False,
    topic: TopicFilter = None,
    reason: Reason = None,
) -> None:
    place, numbers = _place(words or [], plugin, data_dir)
    letters.replay(place, Chosen(ids=numbers, everything=everything, topic=topic, reason=reason))


def _purge(
    words: TargetAndNumbers = None,
    plugin: PluginOption = None,
    data_dir: DataDir = None,
    everything: Everything = False,
    topic: TopicFilter = None,
    reason: Reason = None,
    older_than: Annotated[str | None, typer.Option(metavar="AGE", help=letters.OLDER)] = None,
) -> None:
    place, numbers = _place(words or [], plugin, data_dir)
    chosen = Chosen(ids=numbers, everything=everything, topic=topic, reason=reason, older_than=older_than)
    letters.purge(place, chosen)


def _place(words: list[str], plugin: str | None, data_dir: Path | None) -> tuple[Place, list[str]]:
    """Return whose letters are meant, and the words that follow the target."""
    if plugin is not None:
        return Place.named(plugin, data_dir), words
    if not words:
        raise UsageError("name the plugin: give a TARGET, or its id with --id")
    return Place.of(load(words[0]), data_dir), words[1:]
