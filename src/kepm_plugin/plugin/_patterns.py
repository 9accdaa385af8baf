"""Topics as a plugin declares them: relative to its id, and never by the own id or a built-in plugin's."""

from typing import Any

from ..contract import BUILT_IN_PLUGINS
from ..errors import PluginDefinitionError
from ..topics import Pattern

# `Logger` alone is a word that an author may well use for a level.
_VENDOR = {name.casefold() for name in BUILT_IN_PLUGINS if name.startswith("Keeper")}


def declared(where: str, text: Any, owner: Any = None) -> Pattern:
    """Return the pattern of a declaration; `where` is its class and attribute.

    Raises:
        PluginDefinitionError: With `where` and the corrected spelling.
    """
    try:
        pattern = Pattern.parse(text)
    except PluginDefinitionError as exc:
        raise PluginDefinitionError(f"{where}: {exc}") from exc
    first = pattern.levels[0] if pattern.levels else None
    if first and not pattern.absolute and first.text.casefold() in _VENDOR and not first.wildcard:
        raise PluginDefinitionError(
            f"{where}: topic {text!r} would lie below this plugin's own id; for the topic of {first.text} write "
            f"{'/' + text!r}"
        )
    check_owner(where, pattern, owner)
    return pattern


def check_owner(where: str, pattern: Pattern, owner: Any) -> None:
    """Refuse the id of plugin class `owner` as first level, where it has one.

    Raises:
        PluginDefinitionError: With `where` and the relative spelling.
    """
    plugin_id: object = getattr(owner, "id", None)
    if isinstance(plugin_id, str) and plugin_id:
        try:
            pattern.check_owner(plugin_id)
        except PluginDefinitionError as exc:
            raise PluginDefinitionError(f"{where}: {exc}") from exc


def texts(where: str, value: Any) -> tuple[str, ...]:
    """Return the texts of an attribute that holds several.

    Raises:
        PluginDefinitionError: It holds one text without a tuple around it, or something else.
    """
    attribute = where.rpartition(".")[2]
    if isinstance(value, str):
        raise PluginDefinitionError(f"{where} is one text, {value!r}; write {attribute} = ({value!r},)")
    if not isinstance(value, tuple | list | set | frozenset) or not all(isinstance(one, str) for one in value):  # pyright: ignore[reportUnknownVariableType]
        raise PluginDefinitionError(f"{where} is {value!r}; give a tuple of texts")
    return tuple(value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
