"""The deployed manifest, compared with the code: the agent denies in silence, so we say what will be denied."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kepm_plugin.contract import APPSETTINGS_FILE, PLUGINS_FOLDER
from kepm_plugin.errors import ManifestError
from kepm_plugin.plugin import Declarations
from kepm_plugin.topics import covers

if TYPE_CHECKING:
    from kepm_plugin.manifest import Manifest

log = logging.getLogger("kepm_plugin.runtime")


def warn_of_denials(declarations: Declarations, executable: Path) -> None:
    """Log each topic that the code uses and the deployed manifest lacks; nothing where that file cannot be read."""
    found = deployed_manifest(declarations.plugin.id, executable)
    if found is None:
        return
    path, manifest = found
    primary = str(manifest.get("Subscription.Topic", ""))
    for action, lacking in (
        ("publish", _lacking(declarations.publish, manifest.publish)),
        ("subscribe", _lacking(declarations.subscribe, (*manifest.subscribe, primary))),
    ):
        if lacking:
            log.error(
                "manifest.lacks",
                extra={
                    "file": str(path),
                    "action": action,
                    "topics": lacking,
                    "reason": "the agent's broker drops these without a word; deploy the manifest of this version",
                },
            )


def deployed_manifest(plugin_id: str, executable: Path) -> "tuple[Path, Manifest] | None":
    """Return the manifest in the agent root above an executable, None where there is none that can be read."""
    for folder in executable.absolute().parents:
        path = folder / PLUGINS_FOLDER / f"{plugin_id}.json"
        try:
            if (folder / APPSETTINGS_FILE).is_file() and path.is_file():
                from kepm_plugin.manifest import read_manifest  # of no use to a process without such a file

                return path, read_manifest(path)
        except (ManifestError, OSError) as exc:
            log.warning("manifest.unread", extra={"reason": str(exc)})
            return None
    return None


def _lacking(used: Iterable[str], declared: Iterable[str]) -> list[str]:
    allowed = list(declared)
    return [one for one in used if not any(covers(other, one) for other in allowed)]
