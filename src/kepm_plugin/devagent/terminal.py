"""What a developer sees: one line each, prefixed with where it comes from, in colour on a terminal."""

import re
import sys
from collections.abc import Callable
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

AGENT: Final = "agent"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_LONGEST: Final = 4_000
_PLUGIN_STYLES: Final = ("cyan", "magenta", "blue", "green")
LEVEL_STYLES: Final = {
    "trace": "dim",
    "debug": "dim",
    "information": "",
    "info": "",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
}


def printable(text: str) -> str:
    """Return text that cannot move a terminal's cursor, cut to a sensible length."""
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}… ({len(shown)} characters)"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the error out; rich would end the program."""
        raise BrokenPipeError


class Terminal:
    """Writes lines; never raises because of its stream."""

    def __init__(
        self, *, echo: Callable[[str], None] | None = None, stream: TextIO | None = None, color: bool | None = None
    ) -> None:
        """Write to `echo` if given (plain lines), else to `stream`, else to standard output.

        Args:
            color: None colours where the stream is a terminal.
        """
        self._echo = echo
        self._console = _Console(
            file=stream or sys.stdout,
            force_terminal=color or None,
            no_color=None if color is None else not color,
            highlight=False,
            emoji=False,
            markup=False,
            legacy_windows=False,
        )
        self._styles: dict[str, str] = {AGENT: "bold"}
        self._muted = False

    def line(self, source: str, text: str, style: str = "") -> None:
        """Write one line from `source`, a plugin id or `agent`."""
        shown = printable(text)
        if self._echo is not None:
            self._echo(f"{source:<12} {shown}")
            return
        if self._muted:
            return
        source_style = self._styles.setdefault(source, _PLUGIN_STYLES[len(self._styles) % len(_PLUGIN_STYLES)])
        line = Text.assemble((f"{source:<12}", source_style), " ", (shown, style))
        try:
            self._console.print(line, soft_wrap=True)
            self._console.file.flush()
        except OSError:
            self._muted = True  # nobody reads any more; the agent goes on

    def agent(self, text: str, style: str = "") -> None:
        """Write one line of the agent itself."""
        self.line(AGENT, text, style)

    def warn(self, text: str) -> None:
        """Write one line that the developer should act on."""
        self.line(AGENT, text, "yellow")

    def error(self, text: str) -> None:
        """Write one line about something that does not work."""
        self.line(AGENT, text, "red")
