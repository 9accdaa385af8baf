"""Reading the body of a `Settings` class: its fields, and what is wrong with them."""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, fields, replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from inspect import get_annotations, iscoroutinefunction, isfunction
from operator import attrgetter
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, ClassVar, Final, cast, get_origin, get_type_hints
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace as changed

from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.fields import (
    LIMITS,
    MISSING,
    OPTIONS,
    Kind,
    Secret,
    SettingField,
    kind_of,
    limit,
    shortened,
    type_text,
)
from kepm_plugin.spelling import nearest

from ._names import check_keys
from ._setting import setting

_PLAIN: Final = (
    *(str, int, float, bytes, list, tuple, dict, set, frozenset, PurePath, Enum, Secret),
    *(Decimal, timedelta, date, time, UUID),
)
"""Values that look like a default."""

_REMEDY: Final = (
    "use str, bool, int, float, Decimal, Secret, Size, timedelta, datetime, date, time, Path, UUID, bytes, Literal, an "
    "Enum, one of them | None, a list, tuple, set or dict of them, a Struct, dataclass or TypedDict, or a nested "
    "Settings class"
)


class Declared(Struct, frozen=True):
    """What a class declares: `leaves` are what the agent has keys for."""

    fields: tuple[SettingField, ...] = ()
    leaves: tuple[SettingField, ...] = ()
    nested: bool = False


def nested_in(item: SettingField) -> Any:
    """Return the class of settings that a field holds, None where it holds a value."""
    return item.kind.base if _declarations(item.kind.base) else None


def _declarations(owner: Any) -> Declared | None:
    found: object = getattr(owner, "__kepm_declared__", None)
    return found if isinstance(found, Declared) else None


def _leaves_of(owner: Any) -> tuple[SettingField, ...]:
    found = _declarations(owner)
    return found.leaves if found else ()


def declared(cls: Any, root: Any, *, reserved: bool, nested: bool) -> Declared:
    """Turn the class into a dataclass and return what it declares.

    Args:
        cls: The class.
        root: `Settings`.
        reserved: Its keys, and only they, begin with `kepm.`.
        nested: It stands only in other classes.

    Raises:
        PluginDefinitionError: What is wrong, with class, attribute and remedy.
    """
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        remedy = "define what the annotation names at module level, outside `if TYPE_CHECKING`"
        raise PluginDefinitionError(f"{cls.__qualname__}: an annotation cannot be read: {error}; {remedy}") from error
    own = [name for name in get_annotations(cls) if ClassVar not in (hints[name], get_origin(hints[name]))]
    above = (_declarations(base) for base in cls.__mro__[1:])
    inherited = {item.name for one in above if one for item in one.fields}
    body = dict(cast("dict[str, Any]", vars(cls)))
    _check_body(cls, root, body, hints, own, inherited)
    for name in own:
        if name.startswith("_") or hasattr(root, name):
            raise _wrong(
                cls, name, "is not free as a setting's name", "rename it, and keep the key with setting(key=...)"
            )
        given: Any = body.get(name, MISSING)
        options: dict[str, Any] = (
            dict(given.metadata.get(OPTIONS, {})) if isinstance(given, Field) else {"default": given}
        )
        if options.get("default") is MISSING and _is_settings(hints[name], root):
            options["default"] = _own_defaults(hints[name])
        if options:
            setattr(cls, name, setting(**options))
    dataclass(frozen=True, kw_only=True, repr=False)(cls)
    found = tuple(_field(cls, root, raw, hints[raw.name]) for raw in fields(cls))
    leaves = tuple(leaf for item in found for leaf in _leaves(item))
    try:
        check_keys(leaves, reserved=reserved, nested=nested)
    except ValueError as error:
        raise PluginDefinitionError(f"{cls.__qualname__}.{error}") from None
    return Declared(found, leaves, nested)


_WORDS: Final = ("default", "key", "aliases", "description", "secret", *LIMITS)
"""What `setting()` takes."""

_SYNONYMS: Final = {"min": "ge", "minimum": "ge", "max": "le", "maximum": "le", "regex": "pattern", "name": "key"}
"""Words of other libraries."""


def _check_body(
    cls: Any, root: Any, body: dict[str, Any], hints: dict[str, Any], own: list[str], inherited: set[str]
) -> None:
    """Refuse what looks like a setting and is none."""
    for name, value in body.items():
        if name in ("__init__", "__post_init__"):
            raise _wrong(cls, name, "is the framework's", "override validate()")
        if name not in own and (isinstance(value, Field) or name in inherited):
            raise _wrong(cls, name, "has no annotation, so it is no setting", f"write `{name}: <type> = ...`")
        if name not in hints and not name.startswith("_") and isinstance(value, (*_PLAIN, root)):
            remedy = f"write `{name}: {type(value).__name__} = ...`, or `ClassVar` where it is constant"
            raise _wrong(cls, name, "has no annotation, so it is no setting", remedy)
        if isfunction(value):
            _check_method(cls, name, value)


def _check_method(cls: Any, name: str, function: Any) -> None:
    """Refuse rules that nobody would check."""
    if name == "validate":
        if iscoroutinefunction(function):
            raise _wrong(cls, name, "is async, and is not awaited", "write `def validate(self) -> None`")
    elif not name.startswith(("_", "validate")) and nearest(name, ("validate",), cutoff=0.8):
        raise _wrong(cls, name, "is called by nobody, but looks like 'validate'", "write that, or choose another name")


def _check_words(cls: Any, name: str, options: Mapping[str, Any]) -> None:
    for word in options:
        if word not in _WORDS:
            near = nearest(word.lower(), _WORDS) or _SYNONYMS.get(word.lower(), "")
            meant = f"; did you mean {near!r}?" if near else ""
            remedy = f"write one of {', '.join(_WORDS)}{meant}"
            raise _wrong(cls, name, f"has {word!r}, which setting() does not take", remedy)


def _field(cls: Any, root: Any, raw: Field[Any], annotation: Any) -> SettingField:
    if OPTIONS not in raw.metadata:
        raise _wrong(cls, raw.name, "is made by dataclasses.field()", "use setting()")
    options: dict[str, Any] = dict(raw.metadata[OPTIONS])
    _check_words(cls, raw.name, options)
    kind = _kind(cls, root, raw.name, annotation)
    aliases: Any = options.get("aliases", ())
    if isinstance(aliases, str):
        raise _wrong(cls, raw.name, "has aliases that are one text", f"write aliases=({aliases!r},)")
    item = SettingField(
        name=raw.name,
        key=raw.name if options.get("key") is None else options["key"],
        type=type_text(annotation),
        secret=options.get("secret", False) or kind.secret,
        whole=options.get("secret", False),
        description=options.get("description", ""),
        aliases=tuple(aliases),
        constraints=MappingProxyType(_constraints(cls, raw.name, annotation, kind, options)),
        kind=kind,
    )
    if item.whole and nested_in(item):
        raise _wrong(cls, raw.name, "is a class of settings, which is no secret", "say so of the settings in it")
    default = options["default"]
    if default is MISSING:
        return item
    try:
        return changed(item, default=item.checked(default))
    except ValueError:
        shown = "its default" if item.secret else f"its default {shortened(default)}"
        raise _wrong(cls, raw.name, f"must be {item.rule}, and {shown} is not", "correct one of them") from None


def _kind(cls: Any, root: Any, name: str, annotation: Any) -> Kind:
    if _is_settings(annotation, root):
        return _nested_kind(annotation)
    try:
        return kind_of(annotation)
    except TypeError as error:
        raise _wrong(cls, name, f"cannot be {type_text(annotation)} ({error})", _REMEDY) from None


def _constraints(cls: Any, name: str, annotation: Any, kind: Kind, options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in LIMITS:
        if (given := options.get(word)) is None:
            continue
        if kind.base not in LIMITS[word].bases:
            raise _wrong(cls, name, f"is {type_text(annotation)}, which takes no {word}", f"leave {word} out")
        try:
            found[word] = limit(kind, word, given)
        except ValueError as error:
            raise _wrong(cls, name, str(error), "correct it") from None
    return found


def _is_settings(annotation: Any, root: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, root)


def _own_defaults(inner: Any) -> Any:
    """Return a nested class with its own defaults, `MISSING` where that cannot be."""
    if any(leaf.required for leaf in _leaves_of(inner)):
        return MISSING
    try:
        return inner()
    except SettingsError:  # Its defaults break its own rule over several of them: they have to be set.
        return MISSING


def _nested_kind(inner: Any) -> Kind:
    def check(value: Any) -> Any:
        if type(value) is not inner:
            raise TypeError
        return replace(value)  # a copy, checked again: its lists may have been changed since

    def load(_given: Any) -> Any:
        raise TypeError

    return Kind(inner, f"a {inner.__name__}", load, check)


def _leaves(item: SettingField) -> Iterator[SettingField]:
    """Yield what the agent has keys for: the field, or those of the class that it holds."""
    if (inner := nested_in(item)) is None:
        yield item
        return
    for leaf in _leaves_of(inner):
        keys = [f"{above}.{below}" for above in (item.key, *item.aliases) for below in (leaf.key, *leaf.aliases)]
        default = leaf.default if item.default is MISSING else attrgetter(leaf.name)(item.default)
        yield changed(leaf, name=f"{item.name}.{leaf.name}", key=keys[0], aliases=tuple(keys[1:]), default=default)


def _wrong(cls: Any, name: str, problem: str, remedy: str) -> PluginDefinitionError:
    return PluginDefinitionError(f"{cls.__qualname__}.{name} {problem}; {remedy}")
