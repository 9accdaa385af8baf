"""`deadletters`: what a plugin could not handle, looked at, handled again or deleted, while it runs or not.

By the standard library alone: these commands are in every bundle, too.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kepm_plugin.errors import StoreError, UsageError
from kepm_plugin.plugin import Plugin
from kepm_plugin.store import Letters, open_letters

from . import _letter_text as text
from ._choice import Chosen, Place, number_of
from ._run import DATA_DIR

ABOUT: Final = "What the plugin could not handle: messages, with reason and traceback."
LIST: Final = "List the dead letters, the newest last."
SHOW: Final = "Show one dead letter with its details and its payload."
REPLAY: Final = "Put dead letters back into the journal, to be handled again."
PURGE: Final = "Delete dead letters."
IDS: Final = "Numbers of dead letters, as `list` shows them."
EVERY: Final = "All dead letters, or all that the other options leave."
TOPIC: Final = "Only those whose topic falls under this MQTT filter."
REASON: Final = "Only those whose reason holds this text."
OLDER: Final = "Only those that are older, as in 7d, 12h, 30m or 90s."
JSON: Final = "As a JSON array."
RAW: Final = "Nothing but the payload, byte for byte."


def list_letters(place: Place, chosen: Chosen, *, as_json: bool) -> None:
    """Print the dead letters, the newest last."""
    meant = chosen.filter()
    with open_letters(place.file) as letters:
        entries = [] if letters is None else [entry for entry in letters.all() if meant(entry)]
        dropped = 0 if letters is None else letters.dropped()
    told = f"no dead letters: {place.nothing()}" if letters is None else f"{_count(len(entries))} in {place.file}"
    if as_json:
        text.say(text.as_json(entries))
        if letters is None:
            print(f"kepm-plugin: {told}", file=sys.stderr)
        return
    for line in text.table(entries) if entries else ():
        text.say(line)
    text.say(f"{told}; {dropped} had to go, for newer ones or for their age" if dropped else told)


def show(place: Place, typed: str, *, raw: bool) -> None:
    """Print one dead letter, or its payload alone.

    Raises:
        UsageError: It is not there.
    """
    number = number_of(typed)
    with open_letters(place.file) as letters:
        if letters is None:
            raise UsageError(f"there is no dead letter {number}: {place.nothing()}")
        letter = letters.read(number)
    if letter is None:
        raise UsageError(
            f"there is no dead letter {number} in {place.file}; look what there is with 'deadletters list'"
        )
    if raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(letter.received.payload)
        sys.stdout.buffer.flush()
        return
    for line in text.whole(letter):
        text.say(line)


def replay(place: Place, chosen: Chosen) -> None:
    """Put dead letters back into the journal, oldest first, in a commit each.

    Raises:
        UsageError: One that was named is not there, or the plugin has no journal; none is put back.
        StoreError: One could not be put back; the message says how many were.
    """

    def put_back(letters: Letters, numbers: list[int]) -> int:
        done = 0
        for number in numbers:
            try:
                done += letters.put_back(number)
            except StoreError as exc:
                raise StoreError(f"{done} of {_count(len(numbers))} put back into the journal, then: {exc}") from exc
        return done

    if not place.journal:
        raise UsageError(f"{place.plugin_id} has no journal (journal = False): it would not find what is put back")
    if (done := _changed(place, chosen, put_back)) is not None:
        then = "; the plugin handles them within seconds, or when it is started" if done else ""
        text.say(f"{_count(done)} put back into the journal{then}")


def purge(place: Place, chosen: Chosen) -> None:
    """Delete dead letters, all in one commit.

    Raises:
        UsageError: One that was named is not there; none is deleted.
    """
    if (gone := _changed(place, chosen, Letters.purge)) is not None:
        text.say(f"{_count(gone)} deleted")


def _changed(place: Place, chosen: Chosen, change: Callable[[Letters, list[int]], int]) -> int | None:
    """Do something to the letters that are meant; return with how many, None where there is no file."""
    chosen.check()
    with open_letters(place.file, writable=True) as letters:
        if letters is not None:
            return change(letters, chosen.among(letters.all(), place))
    if chosen.ids:
        raise UsageError(f"there is no dead letter {', '.join(chosen.ids)}: {place.nothing()}")
    text.say(f"no dead letters: {place.nothing()}")
    return None


def _count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"


# --- the command line of one plugin -----------------------------------------------------------------------------------


def add_commands(parser: ArgumentParser) -> None:
    """Add the four commands to the parser of a plugin's `deadletters`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def command(name: str, about: str) -> ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        added.add_argument("--data-dir", metavar="DIR", type=Path, help=DATA_DIR)
        return added

    listing = command("list", LIST)
    listing.add_argument("--json", action="store_true", help=JSON)
    showing = command("show", SHOW)
    showing.add_argument("id", metavar="ID", help="Its number, as `list` shows it.")
    showing.add_argument("--raw", action="store_true", help=RAW)
    replaying, purging = command("replay", REPLAY), command("purge", PURGE)
    for changing in (replaying, purging):
        changing.add_argument("ids", metavar="ID", nargs="*", help=IDS)
        changing.add_argument("--all", action="store_true", help=EVERY)
    for several in (listing, replaying, purging):
        several.add_argument("--topic", metavar="FILTER", help=TOPIC)
        several.add_argument("--reason", metavar="TEXT", help=REASON)
    purging.add_argument("--older-than", metavar="AGE", help=OLDER)


def run_parsed(kind: type[Plugin], given: dict[str, Any]) -> None:
    """Do what the arguments say that `add_commands` has read."""
    place = Place.of(kind, given["data_dir"])
    if given["what"] == "show":
        show(place, given["id"], raw=given["raw"])
        return
    chosen = Chosen(
        ids=given.get("ids", ()),
        everything=given.get("all", False),
        topic=given["topic"],
        reason=given["reason"],
        older_than=given.get("older_than"),
    )
    if given["what"] == "list":
        list_letters(place, chosen, as_json=given["json"])
    elif given["what"] == "replay":
        replay(place, chosen)
    else:
        purge(place, chosen)
