"""One setting: what its value may be, what the agent's text for it means, and how it is written back.

Knows nothing of classes of settings. A value that passes `SettingField.checked` survives the way to the agent and back.
"""

from ._annotation import kind_of, type_text
from ._field import LIMITS, MISSING, Missing, SettingField, limit
from ._kind import FAILURES, Kind, gathered, opens
from ._objects import OPTIONS
from ._secret import MASK, Secret, masked
from ._sizes import Size
from ._texts import Scalar, encode, shortened

__all__ = [
    "FAILURES",
    "LIMITS",
    "MASK",
    "MISSING",
    "OPTIONS",
    "Kind",
    "Missing",
    "Scalar",
    "Secret",
    "SettingField",
    "Size",
    "encode",
    "gathered",
    "kind_of",
    "limit",
    "masked",
    "opens",
    "shortened",
    "type_text",
]
