"""From the text of a contract file to a `Contract`; each complaint names file, item, and what is allowed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from kepm_plugin.contract import DOCUMENTED, ITEMS, Contract
from kepm_plugin.errors import UsageError
from kepm_plugin.spelling import nearest

from ._place import trusted_text


def read_contract(file: Path) -> Contract:
    """Return the contract that a file makes: its items, and what is assumed for the others.

    Raises:
        UsageError: The file cannot be trusted or read, is no TOML, or has what is no item or no value for one.
    """
    import tomllib  # few processes have such a file

    data = trusted_text(file)
    try:
        content = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:  # what is no UTF-8 included
        raise UsageError(f"{file} is no TOML: {exc}") from exc
    try:
        return Contract(**{name: _value(name, value) for name, value in _items(content).items()})
    except UsageError as exc:
        raise UsageError(f"{file}: {exc}") from exc


def _items(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in content.items():
        if name in ITEMS:
            continue
        if name.upper() in DOCUMENTED:
            raise UsageError(f"{name} is documented by the vendor, and only what is assumed can be replaced")
        if isinstance(value, dict):
            raise UsageError(f"there is no table [{name}]; items stand at the top of the file, as in {_EXAMPLE}")
        near = nearest(name, ITEMS)
        meant = f"did you mean {near!r}?" if near else f"there are {', '.join(ITEMS)}"
        raise UsageError(f"there is no item {name!r}; {meant}")
    return content


_EXAMPLE = 'put_value_field = "settingValue"'


def _value(name: str, value: object) -> Any:
    """Return a value as the contract has it: lists of TOML are tuples."""
    shown = _shown(value)
    made = tuple(cast("list[object]", value)) if isinstance(value, list) else value
    if not ITEMS[name].holds(made):
        raise UsageError(f"{name} must be {ITEMS[name].said}, not {shown}")
    return made


def _shown(value: object) -> str:
    """Return a value about as TOML has it, in short."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
