"""The agent's side of the guard: tells it what was started, and lets it go at the end."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

from kepm_plugin.devagent import guard

Kind = Literal["engine", "plugin"]


class Guard:
    """Keeps the guard process informed. Its death is no error: it only takes the insurance away."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def started(self, kind: Kind, pid: int) -> None:
        """Report a process that the agent started."""
        self._tell(f"+{kind} {pid}")

    def ended(self, pid: int) -> None:
        """Report that a process is gone."""
        self._tell(f"-{pid}")

    def folder(self, path: Path) -> None:
        """Name a folder to remove, should the agent not come to it."""
        self._tell(f"rmtree {path}")

    def folder_gone(self, path: Path) -> None:
        """Take a folder back."""
        self._tell(f"-rmtree {path}")

    def _tell(self, line: str) -> None:
        try:
            self._pipe.write(line.encode() + b"\n")
            self._pipe.flush()
        except OSError:
            return


@contextmanager
def guarded(*, leave_plugins: bool) -> Generator[Guard]:
    """Run the guard for the time of the block; it ends what is still listed when the block, or this process, ends."""
    command = [
        sys.executable,
        "-I",
        str(Path(guard.__file__).resolve()),
        *(["--leave-plugins"] if leave_plugins else []),
    ]
    # Its own session: a terminal's Ctrl-C reaches the agent alone.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:  # noqa: S603
        yield Guard(cast("IO[bytes]", process.stdin))
