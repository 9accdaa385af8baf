"""`python -m tests.trust`: the table of docs/security.md, by doing what it says."""

import tempfile
from pathlib import Path

import anyio

from tests.trust.cases import Kit
from tests.trust.table import rows, text


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="kepm-trust-") as folder:
        kit = Kit(Path(folder))
        print(text(anyio.run(rows, kit), kit))


if __name__ == "__main__":
    main()
