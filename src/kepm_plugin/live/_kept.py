"""The last good settings, kept for a start at which the agent has none that follow the rules."""

import logging
from pathlib import Path

import msgspec

from kepm_plugin.folder import write_private
from kepm_plugin.settings import Scalar, Settings, flat

from ._file import SCHEMA, Numbered, read
from ._reading import Reading, Texts

log = logging.getLogger("kepm_plugin.settings")


class _File(Numbered, forbid_unknown_fields=True):
    settings: dict[str, Scalar]


class Kept:
    """The file of the last good settings, without the secrets among them."""

    def __init__(self, path: Path | None, reading: Reading) -> None:
        self.path, self._reading = path, reading
        self._written: bytes | None = None
        self._complained = False
        self.settings: dict[str, Scalar] | None = None
        """What was kept last, by key; None where nothing was."""

    def load(self) -> None:
        """Read the file; one that is damaged or newer is set aside."""
        if self.path is None or (kept := read(self.path, _File)) is None:
            return
        found, self._written = kept
        secret = self._reading.secret  # A key may have become a secret since.
        self.settings = {key: value for key, value in found.settings.items() if key not in secret}

    def keep(self, snapshot: Settings) -> None:
        """Write what is in force now; a disk that fails costs no more than the next start's last good settings."""
        self.settings = {key: value for key, value in flat(snapshot).items() if key not in self._reading.secret}
        body = msgspec.json.encode(_File(SCHEMA, self.settings))
        if self.path is None or not self._reading.keys or body == self._written:
            return
        try:
            write_private(self.path, body.decode())
        except OSError as exc:
            if not self._complained:
                log.warning("settings.unkept", extra={"reason": str(exc)})
            self._complained = True
        else:
            self._written, self._complained = body, False

    def texts(self, values: Texts) -> dict[str, str] | None:
        """Return what was kept, with the secrets that the agent has, each as far as it follows its own rule."""
        if self.settings is None:
            return None
        now = {key: self._reading.now(values, key) for key in self._reading.keys if key in self._reading.secret}
        secret = {key: value for key, value in now.items() if value is not None}
        return self._reading.over(self._reading.over({}, self.settings), secret)

    def differs(self, values: Texts) -> bool:
        """Tell whether something was kept, and the agent has other values now."""
        kept = self.texts(values)
        return kept is not None and self._reading.scalars(kept) != self._reading.scalars(values)
