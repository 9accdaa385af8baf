"""Dead letters as text: what came from outside is shown, but never obeyed by a terminal."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from kepm_plugin.message import indented
from kepm_plugin.store import DeadLetter, Entry

_INVISIBLE: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that steer a terminal, or the order in which it shows others."""

_COLUMNS: Final = ("ID", "WHEN", "SIZE", "DELIVERIES", "REASON", "TOPIC")
_RIGHT: Final = {"ID", "SIZE", "DELIVERIES"}


def say(text: str = "") -> None:
    """Print a line, with escapes for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def visible(text: str, keep: str = "") -> str:
    """Return a text with escapes in place of what is not seen, but for the characters of `keep`."""
    return "".join(
        char
        if char in keep or unicodedata.category(char) not in _INVISIBLE
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def when(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # a clock that was wrong, or a file that somebody has edited
        return "?"


def table(entries: Sequence[Entry]) -> list[str]:
    """Return letters as the lines of a table, with its head."""
    rows = [
        _COLUMNS,
        *(
            (
                str(one.id),
                when(one.buried_at),
                str(one.size),
                "-" if one.deliveries is None else str(one.deliveries),
                visible(one.reason),
                visible(one.topic),
            )
            for one in entries
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for cell, width, name in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]


def as_json(entries: Sequence[Entry]) -> str:
    """Return letters as a JSON array, in ASCII."""
    values = [
        {
            "id": one.id,
            "buriedAt": when(one.buried_at),
            "receivedAt": when(one.received_at),
            "topic": one.topic,
            "qos": one.qos,
            "reason": one.reason,
            "size": one.size,
            "deliveries": one.deliveries,
        }
        for one in entries
    ]
    return json.dumps(values, indent=2)


def whole(letter: DeadLetter) -> list[str]:
    """Return a letter with all that it holds as lines."""
    received = letter.received
    fields = {
        "id": str(letter.id),
        "reason": letter.reason,
        "buried": when(letter.buried_at),
        "received": when(received.received_at),
        "topic": received.topic,
        "qos": f"{received.qos}{', retained' if received.retained else ''}",
        "deliveries": "not known" if letter.deliveries is None else str(letter.deliveries),
        "response topic": received.response_topic,
        "correlation": None if received.correlation_data is None else _inline(received.correlation_data),
    }
    lines = [f"{name + ':':<16}{visible(value)}" for name, value in fields.items() if value is not None]
    lines += [f"{'property:':<16}{visible(f'{name}={value}')}" for name, value in received.properties.items()]
    kind, body = payload(received.payload)
    lines += ["", "details:", *_block(letter.details), "", f"payload, {len(received.payload)} bytes, {kind}:"]
    return lines + body


def payload(data: bytes) -> tuple[str, list[str]]:
    """Return what a payload is, and its lines: JSON indented but otherwise as it came, text, or a hex dump."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "no text", _dump(data)
    pretty = indented(text)
    return ("text", _block(text)) if pretty is None else ("JSON", _block(pretty))


def _block(text: str) -> list[str]:
    # Only these end a line: to `splitlines` others do as well, which would then not show.
    return [f"  {visible(line, keep=chr(9))}" for line in text.removesuffix("\n").split("\n")] if text else []


def _inline(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def _dump(data: bytes) -> list[str]:
    lines = list[str]()
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"  {start:08x}  {part.hex(' '):<47}  {shown}")
    return lines
