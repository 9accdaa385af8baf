"""The record of what is being written: the transaction that is open, and writes that may still arrive.

It lies in a file, so that a process that is killed in the middle leaves to the next one what was meant. No secret is in
it: 16 bits of a salted hash tell old from new, and tell nobody what either is.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kepm_plugin.folder import write_private
from kepm_plugin.settings import Scalar

from ._file import SCHEMA, Numbered, read

log = logging.getLogger("kepm_plugin.settings")

LATE: Final = 60.0
"""Seconds for which a write without an answer may still arrive."""
MOST: Final = 1_000
"""Writes that are remembered at the most; the oldest are forgotten."""


class Print(Struct, frozen=True):
    """What is kept of a secret: 16 bits of a salted hash, in hexadecimal."""

    salt: str
    digest: str

    @classmethod
    def of(cls, value: Scalar, salt: str) -> "Print":
        """Return the print of a value."""
        return cls(salt, hashlib.sha256(f"{salt}:{value}".encode("utf-8", "surrogatepass")).hexdigest()[:4])


Trace = Scalar | Print | None
"""A value, what is kept of it, or None where there was none."""


class Step(Struct, frozen=True):
    """One key of a transaction, with its values before and after."""

    key: str
    old: Trace
    new: Trace


class Intent(Struct, frozen=True):
    """A transaction that is open, in the order in which it is written."""

    steps: tuple[Step, ...]
    aim: Literal["finish", "undo"] = "finish"


class Write(Struct, eq=False):
    """One value that was sent, or is about to be; `since` is by the loop's clock.

    `beside`, for a secret: what the other keys have, or were to have, where this is the right value. A secret that
    arrives while no process is there cannot be put right, as nobody knows the right one: the others are, to fit it.
    """

    key: str
    value: Trace
    since: float = 0.0
    beside: Mapping[str, Scalar] | None = None


class _File(Numbered, forbid_unknown_fields=True):
    transaction: Intent | None
    late: tuple[Write, ...]


def same(trace: Trace, value: Scalar | None) -> bool:
    """Tell whether a value is the one that a trace is of."""
    if isinstance(trace, Print):
        return value is not None and trace == Print.of(value, trace.salt)
    return trace == value


class Record:
    """The transaction that is open, the writes that may still arrive, and the file of both.

    Without a path it is in memory alone; so it is while the file cannot be written, which is logged once.
    """

    def __init__(self, path: Path | None, secret: Iterable[str]) -> None:
        self.path, self._secret = path, frozenset(secret)
        self._late: list[Write] = []
        self._written: bytes | None = None
        self._complained = False
        self.intent: Intent | None = None
        self.state: dict[str, Scalar] | None = None
        """What the keys have, as far as that is known, but for secrets; None where nothing is."""

    def load(self) -> None:
        """Read what the run before has left."""
        if self.path is None or (kept := read(self.path, _File)) is None:
            return
        found, self._written = kept
        now = anyio.current_time()  # Clocks of two processes cannot be compared: the time begins anew.
        self._late = [
            replace(one, since=now, beside=None if one.beside is None else self._plain(one.beside))
            for one in found.late  # A key may have become a secret since.
        ]
        self.intent = found.transaction

    @property
    def empty(self) -> bool:
        """Whether nothing is open, and nothing can arrive."""
        return self.intent is None and not self._alive()

    @property
    def awaits_secret(self) -> bool:
        """Whether a secret can arrive."""
        return any(write.beside is not None for write in self._alive())

    # --- the transaction ----------------------------------------------------------------------------------------------

    def open(self, intent: Intent) -> None:
        """Note a transaction, before anything of it is written."""
        self.intent = intent
        self.save()

    def turn(self) -> None:
        """Note that the open transaction is to be undone."""
        if self.intent is not None and self.intent.aim != "undo":
            self.open(replace(self.intent, aim="undo"))

    def close(self) -> None:
        """Note that nothing is open any more."""
        self.intent = None
        self.save()

    # --- writes that may still arrive ---------------------------------------------------------------------------------

    def expect(self, key: str, value: Scalar) -> Write:
        """Note a value that is about to be sent, until `forget`; in the file, too, as a kill may come amid it."""
        beside = None
        if key in self._secret and self.state is not None:
            steps = self.intent.steps if self.intent is not None and self.intent.aim == "finish" else ()
            beside = self.state | self._plain({step.key: step.new for step in steps})
        write = Write(key, value, anyio.current_time(), beside)
        self._late = [*self._alive(), write][-MOST:]
        self.save()
        return write

    def _plain(self, traces: Mapping[str, Trace]) -> dict[str, Scalar]:
        return {
            key: value
            for key, value in traces.items()
            if key not in self._secret and value is not None and not isinstance(value, Print)
        }

    def became(self, values: Mapping[str, Scalar], *, by_us: bool) -> None:
        """Note what the keys have from now on, secrets too, and by whose change.

        What others have changed stays when a secret of before arrives; what a later edit of this plugin did does not.
        """
        known, self.state = self.state or {}, self._plain(values)
        theirs = {} if by_us else {key: value for key, value in self.state.items() if known.get(key) != value}
        for write in self._late:
            if write.beside is not None:
                fits = same(write.value, values.get(write.key))
                write.beside = self.state if fits else {**write.beside, **theirs}

    def landed(self, has: Callable[[str, Trace], bool]) -> Intent | None:
        """Return what has to be done so that all keys fit a secret that has arrived while no process was there."""
        for write in reversed(self._alive()):
            if write.beside is not None and self.state is not None and has(write.key, write.value):
                others = [
                    Step(key, self.state.get(key), value)
                    for key, value in write.beside.items()
                    if self.state.get(key) != value
                ]
                return Intent((*others, Step(write.key, None, write.value))) if others else None
        return None

    def forget(self, write: Write) -> None:
        """Note that it is known what became of a write."""
        if write in self._late:
            self._late.remove(write)

    def late(self, key: str, value: Scalar | None) -> bool:
        """Tell whether a value is one that was sent, and of which nobody knew whether it would arrive."""
        return value is not None and any(one.key == key and same(one.value, value) for one in self._alive())

    def _alive(self) -> list[Write]:
        since = anyio.current_time() - LATE
        return [one for one in self._late if one.since >= since]

    # --- the file -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the file where it would be another one; there is none where there is nothing to note."""
        if self.path is None:
            if self.intent is not None:
                self._complain("no folder for the plugin's files", logging.INFO)  # As its author wants it.
            return
        self._late = self._alive()
        body = None if self.empty else msgspec.json.encode(_File(SCHEMA, self._masked(self.intent), self._prints()))
        if body == self._written and not self._secret:
            return
        try:
            if body is None:
                self.path.unlink(missing_ok=True)
            else:
                write_private(self.path, body.decode())
        except OSError as exc:
            self._complain(str(exc))
        else:
            self._written, self._complained = body, False

    def tidy(self) -> None:
        """Bring the file up to date, where that failed or something in it has expired."""
        if self._written is not None or not self.empty:
            self.save()

    def _complain(self, reason: str, level: int = logging.WARNING) -> None:
        if not self._complained:
            self._complained = True
            remedy = "settings are written all the same; should this process be killed meanwhile, nothing undoes it"
            log.log(level, "settings.unrecorded", extra={"reason": f"{reason}; {remedy}"})

    def _masked(self, intent: Intent | None) -> Intent | None:
        if intent is None:
            return None
        return replace(intent, steps=tuple(self._step(step) for step in intent.steps))

    def _step(self, step: Step) -> Step:
        if step.key not in self._secret:
            return step
        while True:
            salt = os.urandom(8).hex()
            old, new = _printed(step.old, salt), _printed(step.new, salt)
            if old != new or isinstance(step.old, Print) or isinstance(step.new, Print):
                return replace(step, old=old, new=new)

    def _prints(self) -> tuple[Write, ...]:
        def printed(one: Write) -> Write:
            value = _printed(one.value, os.urandom(8).hex()) if one.key in self._secret else one.value
            return replace(one, value=value, since=0.0)

        return tuple(map(printed, self._late))


def _printed(trace: Trace, salt: str) -> Trace:
    return trace if trace is None or isinstance(trace, Print) else Print.of(trace, salt)
