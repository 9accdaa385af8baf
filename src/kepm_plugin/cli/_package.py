"""`package`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

AGENT_ROOT: Final = Path("dist/agent-root")


def package(target: str, output: Path, options: Sequence[str]) -> None:
    """Build a bundle, and print where its manifest and its program are.

    Raises:
        KepmError: What `kepm_plugin.bundle.build` says.
    """
    from kepm_plugin.bundle import build

    built = build(target, out=output, options=options)
    print(built.manifest)
    print(built.program)
