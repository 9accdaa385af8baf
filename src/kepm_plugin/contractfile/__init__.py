"""The file that replaces what `contract` assumes: where it is, whether it can be trusted, what it says, its schema.

A plugin connects, writes and logs as this file says, so it counts as a part of the program: nobody may write to it who
may not write to the program.
"""

from pathlib import Path

from msgspec import Struct

from kepm_plugin.contract import ASSUMED, Contract

from ._place import CONTRACT_FILE, CONTRACT_VARIABLE, beside, find_contract
from ._read import read_contract
from ._schema import contract_schema

__all__ = [
    "CONTRACT_FILE",
    "CONTRACT_VARIABLE",
    "InForce",
    "beside",
    "contract_schema",
    "find_contract",
    "read_contract",
]


class InForce(Struct, frozen=True):
    """The contract of a run, and the file that it is from; None: nothing replaces what is assumed."""

    contract: Contract = ASSUMED
    file: Path | None = None

    @staticmethod
    def of(file: Path | None) -> "InForce":
        """Read a file, or take what is assumed where there is none.

        Raises:
            UsageError: The file cannot be trusted or read, or says what cannot be.
        """
        return InForce() if file is None else InForce(read_contract(file), file)
