"""Kinds of objects: `msgspec.Struct`, dataclasses and `TypedDict`."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final, cast, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from ._composites import as_it_is, from_json
from ._kind import Kind, Members, Unfit, part
from ._texts import members, tree

OPTIONS: Final = "kepm_plugin.setting"
"""Where a dataclass field keeps what `setting()` was given."""


def is_object(annotation: Any) -> bool:
    """Tell whether this is a class of objects that JSON can carry."""
    kind: Any = get_origin(annotation) or annotation
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return is_struct or (isinstance(kind, type) and is_dataclass(cast("Any", kind))) or is_typeddict(kind)


def object_kind(owner: Any, text: str, kind_of: Callable[[Any], Kind]) -> Kind:
    """Return the kind of a class of objects; msgspec makes them, with its defaults, limits and `__post_init__`.

    Raises:
        TypeError: A field has no kind, or the class cannot be read and written by its fields.
    """
    if get_args(owner) or getattr(owner, "__parameters__", ()):
        raise TypeError("a generic class")
    if is_typeddict(owner):
        hints = get_type_hints(owner)
        names = {name: name for name in hints}
    elif issubclass(owner, msgspec.Struct):
        if owner.__struct_config__.array_like:
            raise TypeError("a Struct that JSON has as an array")
        hints = {one.name: one.type for one in msgspec.structs.fields(owner)}
        names = dict(members(owner))
    else:
        if not all(one.init for one in fields(owner)):
            raise TypeError("a dataclass with a field that is not given at construction")
        if any(OPTIONS in one.metadata for one in fields(owner)):
            raise TypeError("a class with settings of its own, whose keys and secrets would be lost inside of a value")
        hints = get_type_hints(owner, include_extras=True)
        names = dict(members(owner))
    kinds = {name: kind_of(hints[name]) for name in names}
    by_spelling = {spelt: kinds[name] for name, spelt in names.items()}
    folded = {spelt.casefold(): (spelt, kind) for spelt, kind in by_spelling.items()}
    if len(folded) < len(names):
        raise TypeError("two fields whose names differ in casing only")
    convert = _maker(owner)

    def load(given: Any) -> Any:
        raw = from_json(given, dict)
        read = {key: part(key, kind, kind.loaded, raw[key]) for key, kind in by_spelling.items() if key in raw}
        return convert(raw | read)

    def check(value: Any) -> Any:
        taken = _taken_apart(owner, names, value)
        found = {names[name]: part(name, kinds[name], kinds[name].checked, one) for name, one in taken.items()}
        made = convert(found)
        if tree(made) != tree(found):  # a default, or `__post_init__`, has put something else there
            raise ValueError("another object comes back")
        return made

    return Kind(
        owner,
        f"JSON text of a {text}",
        load,
        check,
        parts=Members(MappingProxyType(folded)),
        secret=any(kind.secret for kind in kinds.values()),
    )


def _maker(owner: Any) -> Callable[[Mapping[str, Any]], Any]:
    msgspec.json.Decoder(owner, dec_hook=as_it_is)  # TypeError where msgspec cannot make one

    def make(found: Mapping[str, Any]) -> Any:
        try:
            return msgspec.convert(found, owner, dec_hook=as_it_is)
        except msgspec.ValidationError as error:
            raise Unfit(str(error)) from None

    return make


def _taken_apart(owner: Any, names: Mapping[str, str], value: Any) -> dict[str, Any]:
    if not is_typeddict(owner):
        if type(value) is not owner:
            raise TypeError
        return {name: getattr(value, name) for name in names}
    if type(value) is not dict or not value.keys() <= names.keys():
        raise TypeError
    return dict(cast("dict[str, Any]", value))
