"""Annotations as written: looked up where they stand, since names may be defined further down the module."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from inspect import get_annotations
from types import SimpleNamespace
from typing import Any, get_type_hints

from ..errors import PluginDefinitionError


class UnresolvedAnnotation(PluginDefinitionError):
    """An annotation names something that does not exist, or does not exist yet."""


def namespace(owner: type, function: Any = None) -> dict[str, Any]:
    """Return what the names in an annotation of a class, or of a function in it, mean."""
    module = sys.modules.get(owner.__module__)
    return {**getattr(module, "__dict__", {}), **getattr(function, "__globals__", {})}


def resolved(where: str, annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation with its names looked up; `where` is class and attribute.

    Raises:
        UnresolvedAnnotation: It names what is not there at run time, or not yet.
        PluginDefinitionError: It is no annotation.
    """
    with _told(where):
        return get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), names, include_extras=True)["it"]


def annotated(where: str, holder: Any, name: str, names: dict[str, Any]) -> Any:
    """Return the annotation that a class or function has for a name, as `resolved`; NoneType where it has none.

    Raises:
        UnresolvedAnnotation: As in `resolved`.
        PluginDefinitionError: As in `resolved`.
    """
    with _told(where):
        written = get_annotations(holder).get(name)
    return resolved(where, written, names)


@contextmanager
def _told(where: str) -> Generator[None]:
    try:
        yield
    except NameError as exc:
        raise UnresolvedAnnotation(
            f"{where}: an annotation names {exc.name!r}, which its module does not have at run time; define it at the "
            "top level of the module, and import it outside 'if TYPE_CHECKING'"
        ) from exc
    except (AttributeError, SyntaxError, TypeError) as exc:
        raise PluginDefinitionError(f"{where}: an annotation cannot be read: {exc}; correct it") from exc
