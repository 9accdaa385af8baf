"""What stands in a plugin's code and would do nothing: half a declaration, or a handler that nobody registered."""

import logging
from collections.abc import Generator
from inspect import get_annotations, isabstract, isclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from ..errors import PluginDefinitionError
from ..settings import Settings
from ._annotations import namespace, resolved
from ._handler import Handler
from ._publish import Declared

if TYPE_CHECKING:
    from ._plugin import Plugin

log = logging.getLogger("kepm_plugin.plugin")


def check_leftovers(plugin: "type[Plugin]", *, has_settings: bool) -> None:
    """Refuse what cannot be meant; warn of handlers without a registration, which may be meant for later.

    Raises:
        PluginDefinitionError: With class, attribute and remedy.
    """
    bases = [base for base in plugin.__mro__ if not base.__module__.startswith(f"{__package__}")]
    for base in bases:
        for one in getattr(base, "pending_registrations", list[Any])():
            raise PluginDefinitionError(
                f"{one.written} stands alone and registers nothing; write '@{one.written}' right above a handler class"
            )
        for name in get_annotations(base):
            if not name.startswith("_") and not hasattr(plugin, name):
                _check_annotation(base, name, has_settings=has_settings)
    _warn_of_unregistered(plugin, {base.__module__ for base in bases})


def _check_annotation(base: type, name: str, *, has_settings: bool) -> None:
    where = f"{base.__name__}.{name}"
    try:
        found = resolved(where, get_annotations(base)[name], namespace(base))
    except PluginDefinitionError:
        return  # for the checkers only
    kind = get_origin(found) or found
    if isclass(kind) and issubclass(kind, Declared):
        raise PluginDefinitionError(
            f"{where} is only annotated, so there is no {kind.__name__}; write '{name} = {_written(found)}(\"…\")' "
            "with its topic"
        )
    if isclass(kind) and issubclass(kind, Settings) and not has_settings:
        raise PluginDefinitionError(
            f"{where} is annotated with settings, which are read from 'settings' alone; write "
            f"'settings: {kind.__name__}'"
        )


def _written(annotation: Any) -> str:
    kind = get_origin(annotation)
    if kind is None:
        return str(annotation.__name__)
    return f"{kind.__name__}[{', '.join(getattr(one, '__name__', str(one)) for one in get_args(annotation))}]"


def _warn_of_unregistered(plugin: "type[Plugin]", homes: set[str]) -> None:
    """Warn of what a forgotten decorator leaves: a complete handler of this plugin, in one of its modules."""
    registered = {spec.handler for spec in plugin.handler_specs()}
    homes |= {kind.__module__ for kind in registered}
    for kind in _leaves(Handler):
        if (
            kind not in registered
            and kind.__module__ in homes
            and "<locals>" not in kind.__qualname__
            and not isabstract(kind)
            and hasattr(kind, "handle")
            and _plugin_of(kind) is plugin
        ):
            log.warning(
                "%s.%s is a handler of %s but takes no topic; write '@%s.command(…)' or '@%s.topic(…)' above it",
                *(kind.__module__, kind.__qualname__, plugin.__name__, plugin.__name__, plugin.__name__),
            )


def _leaves(kind: type[Handler[Any]]) -> Generator[type[Handler[Any]]]:
    for one in kind.__subclasses__():
        if one.__subclasses__():
            yield from _leaves(one)
        else:
            yield one


def _plugin_of(kind: type[Handler[Any]]) -> Any:
    """Return the `P` of the nearest `Handler[P]`."""
    for base in kind.__mro__:
        for generic in vars(base).get("__orig_bases__", ()):
            if get_origin(generic) is Handler:
                return get_args(generic)[0]
    return None
