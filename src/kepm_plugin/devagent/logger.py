"""The KeeperLogger component: records that passed the gate go to a file and to the terminal. Never raises."""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kepm_plugin.devagent.likeness import Likeness, Role
from kepm_plugin.devagent.terminal import LEVEL_STYLES, Terminal
from kepm_plugin.devagent.tracebacks import readable
from kepm_plugin.devagent.traffic import Crossing, Ledger

ROTATE_AT: Final = 10 * 1024 * 1024
_KNOWN: Final = frozenset({"timestamp", "time", "level", "source", "plugin", "message", "msg", "event"})
_USUAL: Final = ("timestamp", "level", "message", "source")
_TRACEBACK: Final = "exception"
"""The field that holds a traceback as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record as it reached KeeperLogger.

    Attributes:
        record: The JSON object, None where the payload is none.
        raw: The payload as text.
        at: Seconds since the epoch.
    """

    plugin_id: str
    record: Mapping[str, Any] | None
    raw: str
    at: float


class KeeperLogger:
    """Takes records in; keeps the last ones in `records`."""

    def __init__(self, path: Path, terminal: Terminal, role: Role) -> None:
        self._path, self._terminal, self._role = path, terminal, role
        self.records: Ledger[LogRecord] = Ledger()
        self._broken = False

    def take(self, crossing: Crossing) -> None:
        """Write one publication to the file and show it; one that does not fit is dropped, and that is shown."""
        raw = crossing.payload.decode("utf-8", "replace")
        record = LogRecord(plugin_id=crossing.plugin_id, record=_parsed(raw), raw=raw, at=crossing.at)
        if record.record is not None and (why := self._role.like.lacking(record.record)):
            self._terminal.line(record.plugin_id, f"log record dropped: {why}; the client sees nothing of this", "red")
            return
        self._write(record)
        self._show(record)
        self.records.add(record)

    def _write(self, record: LogRecord) -> None:
        moment = datetime.datetime.fromtimestamp(record.at, datetime.UTC)
        line: dict[str, Any] = {"receivedAt": moment.isoformat(), "plugin": record.plugin_id}
        line |= {"raw": record.raw} if record.record is None else {"record": record.record}
        try:
            self._rotate(moment)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        except (OSError, ValueError) as exc:
            if not self._broken:
                self._terminal.error(f"{self._path} cannot be written: {exc}; records are shown here only")
            self._broken = True

    def _rotate(self, moment: datetime.datetime) -> None:
        """Give a full file the name of a rotated one (Reading Logs)."""
        if self._path.exists() and self._path.stat().st_size > ROTATE_AT:
            self._path.replace(self._path.with_name(f"{self._path.stem}_{moment:%Y%m%d_%H%M%S}{self._path.suffix}"))

    def _show(self, record: LogRecord) -> None:
        if record.record is None:
            self._terminal.line(record.plugin_id, f"log, no JSON object: {record.raw}", "yellow")
            return
        like = self._role.like
        renamed = {name: usual for name, usual in zip(_renamed(like), _USUAL, strict=True) if name}
        fields = {renamed.get(key, key.lower()): value for key, value in record.record.items()}
        level = str(fields.get("level", "?"))
        message = next((str(fields[key]) for key in ("message", "msg", "event") if key in fields), "")
        traceback = fields.pop(_TRACEBACK) if "\n" in str(fields.get(_TRACEBACK, "")) else ""
        others = " ".join(f"{key}={_short(value)}" for key, value in fields.items() if key not in _KNOWN)
        style = LEVEL_STYLES.get(level.lower(), "")
        self._terminal.line(record.plugin_id, f"{level:<11} {message} {others}".rstrip(), style)
        for line in readable(str(traceback)):
            self._terminal.line(record.plugin_id, f"    {line}", style)


def _renamed(like: Likeness) -> tuple[str, ...]:
    return like.log_time, like.log_level, like.log_message, like.log_source


def _parsed(raw: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _short(value: object) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)
