"""Which dead letters a command line means: whose, where they are, and which of them."""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kepm_plugin.errors import BadTopic, UsageError
from kepm_plugin.folder import DATA_DIR_VARIABLE, data_folder
from kepm_plugin.plugin import Plugin
from kepm_plugin.store import FILE, Entry
from kepm_plugin.topics import check_filter, matches

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Whose dead letters are meant, and where they are."""

    plugin_id: str
    data_dir: Path | None = None
    journal: bool = True
    """Whether the plugin has a file at all, as far as is known."""

    @staticmethod
    def of(kind: type[Plugin], data_dir: Path | None) -> "Place":
        """Return the place of a plugin whose code is here."""
        return Place(plugin_id=kind.id, data_dir=data_dir, journal=kind.journal)

    @staticmethod
    def named(plugin_id: str, data_dir: Path | None) -> "Place":
        """Return the place of a plugin of which the id is known.

        Raises:
            UsageError: That is no id.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", plugin_id):
            raise UsageError(f"--id {plugin_id!r}: that is no plugin's id; give the one in its manifest")
        return Place(plugin_id=plugin_id, data_dir=data_dir)

    @property
    def file(self) -> Path:
        """Where the plugin keeps its file, if it is started as this command is."""
        return data_folder(self.plugin_id, self.data_dir, os.environ) / FILE

    def nothing(self) -> str:
        """Say that there is no file, and where else one may be."""
        if not self.journal:
            return f"{self.plugin_id} keeps no dead letters on disk (journal = False)"
        service = data_folder(self.plugin_id, None, {}, root=True) / FILE
        hint = ""
        if self.data_dir is None and DATA_DIR_VARIABLE not in os.environ:
            hint = "; for a plugin under `dev --root DIR` give --data-dir DIR/.dev/data"
            if service != self.file:
                hint = f"; that of a plugin which runs as a service is {service}: look as root{hint}"
        return f"there is no file {self.file}{hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which dead letters a command is about. The texts are as they were typed."""

    ids: Sequence[str] = ()
    everything: bool = False
    topic: str | None = None
    reason: str | None = None
    older_than: str | None = None

    def check(self) -> None:
        """Refuse what is no clear choice.

        Raises:
            UsageError: Neither numbers nor `--all`, both, or a text that is wrong.
        """
        if self.ids and self.everything:
            raise UsageError("give numbers of dead letters, or --all; not both")
        if not self.ids and not self.everything:
            raise UsageError("give the numbers of dead letters, as 'deadletters list' shows them, or --all")
        if self.ids and (self.topic or self.reason or self.older_than):
            raise UsageError("--topic, --reason and --older-than go with --all; numbers say themselves what is meant")
        self.filter()

    def filter(self) -> Callable[[Entry], bool]:
        """Return what tells whether a letter is meant.

        Raises:
            UsageError: A text is wrong.
        """
        oldest = None if self.older_than is None else time.time() - _seconds(self.older_than)
        numbers = {number_of(one) for one in self.ids}
        if self.topic is not None:
            try:
                check_filter(self.topic)
            except BadTopic as exc:
                raise UsageError(f"--topic: {exc}") from exc

        def meant(entry: Entry) -> bool:
            return (
                (not numbers or entry.id in numbers)
                and (self.topic is None or matches(self.topic, entry.topic))
                and (self.reason is None or self.reason.casefold() in entry.reason.casefold())
                and (oldest is None or entry.buried_at < oldest)
            )

        return meant

    def among(self, entries: Sequence[Entry], place: Place) -> list[int]:
        """Return the numbers that are meant, in order of their burial.

        Raises:
            UsageError: One that was named is not there.
        """
        meant = self.filter()
        found = [entry.id for entry in entries if meant(entry)]
        missing = sorted({number_of(one) for one in self.ids} - set(found))
        if missing:
            listed = ", ".join(map(str, missing))
            raise UsageError(
                f"there is no dead letter {listed} in {place.file}; look what there is with 'deadletters list'"
            )
        return found


def number_of(typed: str) -> int:
    """Return the number of a dead letter.

    Raises:
        UsageError: It is none.
    """
    if not re.fullmatch(r"[0-9]{1,18}", typed):
        raise UsageError(f"{typed!r} is no number of a dead letter; look what there is with 'deadletters list'")
    return int(typed)


def _seconds(typed: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", typed)
    if not found:
        raise UsageError(f"--older-than {typed!r}: write a number with s, m, h or d, as in 7d")
    return float(found[1]) * _UNITS[found[2]]
