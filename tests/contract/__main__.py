"""`python -m tests.contract`: tries the probe against every agent, and prints what docs/contract.md has of it."""

import os
import tempfile
from pathlib import Path

import anyio

from tests.contract.table import page, rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ["KEPM_DEV_AGENTS"] = str(Path(name) / "agents")  # not the developer's list
        print(page(anyio.run(rows, Path(name))), end="")


if __name__ == "__main__":
    main()
