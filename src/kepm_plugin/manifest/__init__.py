"""A plugin's JSON file: written from its declarations, read, compared, checked.

This package knows the file. It knows neither folders of an agent nor command lines.
"""

from ._document import Manifest, read_manifest, to_json
from ._drift import drift
from ._fields import schema
from ._generate import current_platform, default_executable, manifest_of, supported
from ._validate import Finding, Findings, validate_files

__all__ = [
    "Finding",
    "Findings",
    "Manifest",
    "current_platform",
    "default_executable",
    "drift",
    "manifest_of",
    "read_manifest",
    "schema",
    "supported",
    "to_json",
    "validate_files",
]
