"""Where the agent's API is: the sources of its address, in order."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..contract import (
    API_BASE_TOKEN,
    APPSETTINGS_FILE,
    APPSETTINGS_HTTPS_PORT,
    APPSETTINGS_SECTION,
    DEFAULT_API_BASE,
)
from ..errors import UsageError

API_BASE_VARIABLE: Final = "KEPM_API_BASE"

_log = logging.getLogger("kepm_plugin.agent")


def find_api_base(argument: str | None, environ: Mapping[str, str], executable: Path) -> str:
    """Return the API's base URL, without a slash at its end.

    The first of: `argument` (`--keeper-api-base`; a literal `{KeeperApiBaseUrl}` that nobody substituted counts as
    not given), `KEPM_API_BASE`, `Settings:KestrelHttpsPort` in an `appsettings.json` found upwards from `executable`,
    `https://127.0.0.1:6889`.

    Raises:
        UsageError: What was given is not an https URL.
    """
    for source, given in (("--keeper-api-base", argument), (API_BASE_VARIABLE, environ.get(API_BASE_VARIABLE))):
        if given and given.strip().rstrip("/") != API_BASE_TOKEN:
            return _normalised(given.strip(), source)
    for folder in executable.absolute().parents:
        port = _https_port(folder / APPSETTINGS_FILE)
        if port is not None:
            return f"https://127.0.0.1:{port}"
    return DEFAULT_API_BASE


def _normalised(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{source} {url!r} is not a URL ({error}); give one like {DEFAULT_API_BASE}") from None
    if parts.scheme == "http":
        raise UsageError(f"{source} {url!r} is not encrypted; give the https address, like {DEFAULT_API_BASE}")
    if parts.scheme != "https" or not host or parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{source} {url!r} is not the address of the agent's API; give one like {DEFAULT_API_BASE}")
    return url.rstrip("/")


def _https_port(file: Path) -> int | None:
    """Read the port from the agent's configuration; keys of any casing, as .NET reads them."""
    try:
        section = _member(json.loads(file.read_text("utf-8-sig")), APPSETTINGS_SECTION)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s cannot be read (%s); looking further for the agent's port", file, type(error).__name__)
        return None
    value = _member(section, APPSETTINGS_HTTPS_PORT)
    if value is None:
        return None
    if isinstance(value, (int, str)) and str(value).isdecimal() and 0 < int(value) < 65536:
        return int(value)
    _log.warning("%s: %s:%s is no port; looking further", file, APPSETTINGS_SECTION, APPSETTINGS_HTTPS_PORT)
    return None


def _member(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            if str(key).lower() == name.lower():  # pyright: ignore[reportUnknownArgumentType]
                return inner  # pyright: ignore[reportUnknownVariableType]
    return None
