"""A small file in the plugin's folder: JSON of a numbered schema, of which a damaged one is never fatal."""

import logging
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from kepm_plugin.folder import set_aside

log = logging.getLogger("kepm_plugin.settings")

SCHEMA: Final = 1


class Numbered(msgspec.Struct, forbid_unknown_fields=True):
    """What a file holds, and by which schema."""

    schema: int


F = TypeVar("F", bound=Numbered)


def read(path: Path, kind: type[F]) -> tuple[F, bytes] | None:
    """Return what a file holds, and its bytes; None where there is none.

    One that is damaged, or that a newer version wrote, is set aside with a warning.
    """
    try:
        body = path.read_bytes()
        found = msgspec.json.decode(body, type=kind)
        if found.schema != SCHEMA:
            raise ValueError(f"its schema is {found.schema}, ours is {SCHEMA}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:  # msgspec's errors are ValueErrors
        aside = set_aside(path)
        log.warning("settings.file_set_aside", extra={"file": str(path), "as": aside, "reason": str(exc)})
        return None
    return found, body
