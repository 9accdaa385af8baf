"""The command line: of the framework (`main`), and of one plugin (`plugin_main`).

Every error becomes one line on standard error and an exit code. What a command needs is imported when it runs: a plugin
that starts loads no command line library, and writing a manifest no network library.
"""

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from kepm_plugin.errors import KepmError
from kepm_plugin.plugin import Plugin
from kepm_plugin.target import real_class

__all__ = ["main", "plugin_main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `kepm-plugin` with `arguments`, by default those of the process, and exit."""
    with _errors_told():
        from ._app import app

        app(list(sys.argv[1:] if arguments is None else arguments), prog_name="kepm-plugin")
    raise SystemExit(0)


def plugin_main(kind: type[Plugin], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line of one plugin, and exit: `run` where no other command is named, and with its options."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given = ["run", *given]
    with _errors_told():
        real = real_class(kind)
        if given[0] == "run":
            from ._run import parsed, run_plugin

            raise SystemExit(run_plugin(real, parsed(real.id, given[1:])))
        from ._plugin_commands import run_command

        raise SystemExit(run_command(real, given))
    raise SystemExit(0)


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except KepmError as exc:
        print(f"kepm-plugin: {exc}", file=sys.stderr)
        raise SystemExit(exc.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
