"""What a plugin gives the programs that it starts: an environment without the traces of its own bundle."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SET_BY_THE_LOADER: Final = ("LD_LIBRARY_PATH", "LIBPATH")
"""It keeps what it found in `<name>_ORIG`."""
_SEARCHED: Final = (*_SET_BY_THE_LOADER, "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "PATH")
"""The last ones are set for libraries that need it, by PyInstaller's hooks."""
_OF_THE_LOADER: Final = "_PYI_"


def program_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which to start another program, by default from that of this process.

        await anyio.run_process(["/usr/bin/dpkg", "--verify"], env=program_environment())

    The loader of a bundle puts the bundle's own libraries first where programs look for theirs, and what the plugin
    starts inherits that: it fails, or runs with another OpenSSL than its own. Here those variables are as they were
    before, without folders of the bundle, and the loader's own are gone. Outside of a bundle it is a copy.

    On Windows, PyInstaller sets a folder for DLLs by a call, `SetDllDirectoryW`, which no environment undoes.

    Source: "Launching External Programs from the Frozen Application" in PyInstaller's manual.
    """
    environment = dict(os.environ if environ is None else environ)
    bundle = getattr(sys, "_MEIPASS", None)
    if bundle is None:
        return environment
    for name in _SEARCHED:
        value = environment.pop(name, None)
        original = environment.pop(f"{name}_ORIG", None) if name in _SET_BY_THE_LOADER else None
        if original is not None:
            environment[name] = original
        elif value is not None:
            kept = [one for one in value.split(os.pathsep) if not Path(one).is_relative_to(bundle)]
            # To a loader an empty search path is the working folder; so nothing is left of it, unless it was empty.
            if any(kept) or not value:
                environment[name] = os.pathsep.join(kept)
    return {name: value for name, value in environment.items() if not name.startswith(_OF_THE_LOADER)}
