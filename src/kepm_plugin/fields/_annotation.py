"""From an annotation to its kind."""

import enum
import re
import types
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

from msgspec.structs import replace

from ._composites import COLLECTIONS, anything, choice, collection, narrowed, table
from ._kind import Kind
from ._objects import is_object, object_kind
from ._scalars import SCALARS


def kind_of(annotation: Any) -> Kind:
    """Return the kind of an annotation; raise TypeError with what is wrong where it has none."""
    if annotation in (Any, object):
        raise TypeError("any type")
    try:
        return _kind(annotation)
    except RecursionError:
        raise TypeError("a class that contains itself") from None


def type_text(annotation: Any) -> str:
    """Return an annotation as one would write it: `int`, `list[str] | None`."""
    plain = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    return re.sub(r"(?:\w+\.|<locals>\.)+(?=\w)", "", plain)


def _kind(annotation: Any) -> Kind:
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    base, args = get_origin(annotation) or annotation, get_args(annotation)
    if base in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError("a union other than `X | None`")
        return replace(_kind(inner[0]), optional=True)
    if base is Annotated:
        kind = _kind(args[0])
        return replace(narrowed(kind, annotation), optional=kind.optional, secret=kind.secret)
    if base in COLLECTIONS:
        return _collection(base, annotation, args)
    if base is Literal:
        return choice(args, {})
    if isinstance(base, type) and issubclass(base, enum.Enum) and not issubclass(base, enum.Flag):
        return choice(tuple(base), base.__members__)
    if base in (Any, object):
        return anything()
    if base in SCALARS:
        return SCALARS[base]
    if is_object(annotation):
        return object_kind(annotation, type_text(annotation), _kind)
    raise TypeError("an unknown type")


def _collection(base: Any, annotation: Any, args: tuple[Any, ...]) -> Kind:
    text = type_text(annotation)
    if base is dict:
        key, value = args or (str, object)
        return table(text, _kind(key), _kind(value))
    if base is tuple and annotation is not tuple and args[1:] != (Ellipsis,):
        if not args:
            raise TypeError("a tuple that is always empty")
        return collection(base, text, tuple(map(_kind, args)), fixed=True)
    return collection(base, text, (_kind(args[0] if args else object),))
