"""Typed settings: declared as a class, parsed from the agent's flat strings into one frozen snapshot.

The agent hands out every value as a string (HTTP Reference). This module knows how a class declares settings, how a
snapshot comes to be and how two of them differ. It asks nobody for values and keeps none.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import Enum
from pathlib import PurePath
from types import MappingProxyType
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    Self,
    TypeVar,
    dataclass_transform,
    get_origin,
    get_type_hints,
    overload,
)

from kepm_plugin.contract import RESERVED_SETTING_PREFIX, REVERT, STATUS
from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.fields import LIMITS, MASK, MISSING, Missing, Scalar, SettingField, encode, kind_of, type_text

__all__ = [
    "MISSING",
    "Change",
    "Missing",
    "Scalar",
    "SettingField",
    "Settings",
    "changed_keys",
    "difference",
    "encode",
    "fields_of",
    "flat",
    "manifest_defaults",
    "read_key",
    "secret_keys",
    "secrets_of",
    "setting",
    "unknown_keys",
]

T = TypeVar("T")
S = TypeVar("S", bound="Settings")

REFUSED_KEYS: Final = frozenset(
    {"id", "name", "description", "version", "plugintype", "executablepath", "arguments", "supportedplatforms"}
    | {"subscription", "metadata", "mqttrole", "mqtttopics", "startuppriority", "autostart", "executioncontext"}
    | {"requiresmonitoring", "autorestart", STATUS, REVERT}
)
"""Fields of a plugin's JSON, where settings stand beside them (Plugin Guide), and paths of the settings API."""

_PLAIN: Final = (str, int, float, list, tuple, dict, PurePath, Enum)
"""Values that look like a default."""

_OPTIONS: Final = "kepm_plugin.setting"  # where a dataclass field keeps what `setting()` was given


@overload
def setting(
    *,
    default: T,
    key: str | None = None,
    description: str = "",
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> T: ...
@overload
def setting(
    *,
    key: str | None = None,
    description: str = "",
    secret: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
) -> Any: ...
def setting(*, default: object = MISSING, **options: Any) -> Any:
    """Declare one setting in the body of a `Settings` class.

    Args:
        default: The value where the agent has none; without it the setting must be set.
        key: The setting's name at the agent; the attribute's name unless given.
        description: For the operator, in one line.
        secret: Masked in `repr`, errors and logs, and never written to a manifest.
        ge: Numbers only: the least value.
        gt: Numbers only: the value must be above.
        le: Numbers only: the greatest value.
        lt: Numbers only: the value must be below.
        min_length: Text and collections: the least length.
        max_length: Text and collections: the greatest length.
        pattern: Text only: a regular expression that the whole value must match (`re.fullmatch`).
    """
    options["default"] = default
    # A factory, because a dataclass refuses lists; every snapshot gets a copy of its own in __post_init__.
    given: dict[str, Any] = {} if default is MISSING else {"default_factory": lambda: default}
    return field(**given, metadata={_OPTIONS: options})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Base of an author's settings: a frozen snapshot of typed values.

    A field is an annotated attribute: `str`, `bool`, `int`, `float`, `Literal`, an `Enum` of strings or whole
    numbers, `Path`, or one of them `| None`, for which the empty string is None; `list[X]`, `tuple[X, ...]` and
    `dict[str, X]` are JSON text at the agent. What is constant is a `ClassVar`. Values are checked however the
    snapshot came to be, parsed, constructed or copied with `dataclasses.replace`, so none breaks its rules.

    Raises:
        PluginDefinitionError: At the class statement, for a field that cannot be.
        SettingsError: At construction, naming every value that breaks its rule.
    """

    __kepm_fields__: ClassVar[tuple[SettingField, ...]] = ()

    def __init_subclass__(cls, *, reserved: bool = False, **rest: Any) -> None:
        """Read the class body. `reserved=True` is the framework's own: its keys, and only they, begin with `kepm.`."""
        super().__init_subclass__(**rest)
        cls.__kepm_fields__ = _declared(cls, reserved=reserved)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Return the snapshot that the agent's strings mean.

        A key is looked up as written, then in any casing. Unknown keys are ignored (HTTP Reference).

        Raises:
            SettingsError: Names every key that is missing or breaks its rule, and shows the value unless it is secret.
        """
        found: dict[str, Any] = {}
        problems: list[tuple[SettingField, str]] = []
        for item in fields_of(cls):
            try:
                value = _parsed(item, values)
            except SettingsError as error:
                problems.append((item, str(error)))
                continue
            if value is MISSING:
                problems.append((item, f"{item.key!r} is not set; it must be {item.rule}"))
            found[item.name] = value
        _raise_for(cls, problems)
        return cls(**found)

    def validate(self) -> None:
        """Check rules over several fields; override it and raise ValueError or SettingsError.

        It runs at the end of every construction, after each value has passed its own rule.
        """

    def __post_init__(self) -> None:
        problems: list[tuple[SettingField, str]] = []
        for item in fields_of(type(self)):
            value = getattr(self, item.name)
            try:
                object.__setattr__(self, item.name, item.checked(value))
            except ValueError:
                problems.append((item, item.complaint(value)))
        _raise_for(type(self), problems)
        try:
            self.validate()
        except (ValueError, SettingsError) as error:
            # Neither the message nor a chained exception may carry a secret out.
            text = str(error)
            for secret in sorted(secrets_of(self), key=len, reverse=True):
                text = text.replace(secret, MASK)
            key, rule = (error.key, error.rule) if isinstance(error, SettingsError) else ("", text)
            raise SettingsError(f"{type(self).__name__}: {text}", key=key, rule=rule) from None

    def __repr__(self) -> str:
        shown = (f"{f.name}={MASK if f.secret else repr(getattr(self, f.name))}" for f in fields_of(type(self)))
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Change(Generic[S]):
    """Two snapshots, and the names of the attributes in which they differ."""

    old: S
    new: S
    names: frozenset[str]


def fields_of(settings: type[Settings]) -> tuple[SettingField, ...]:
    """Return the fields of a settings class in the order of declaration, those of its bases first."""
    return settings.__kepm_fields__


def difference(old: S, new: S) -> frozenset[str]:
    """Return the names of the attributes in which two snapshots of one class differ."""
    return frozenset(f.name for f in fields_of(type(new)) if getattr(old, f.name) != getattr(new, f.name))


def changed_keys(old: S, new: S) -> frozenset[str]:
    """Return the agent's keys for what differs between two snapshots of one class."""
    names = difference(old, new)
    return frozenset(f.key for f in fields_of(type(new)) if f.name in names)


def manifest_defaults(settings: type[Settings]) -> dict[str, Scalar]:
    """Return the defaults that a manifest carries, by key; secrets, required settings and None have none there."""
    given = (f for f in fields_of(settings) if not (f.required or f.secret or f.default is None))
    return {f.key: encode(f.default) for f in given}


def flat(settings: Settings) -> dict[str, Scalar]:
    """Return a snapshot as the agent holds it: each key with the value that a PUT carries, in the order declared."""
    return {f.key: encode(getattr(settings, f.name)) for f in fields_of(type(settings))}


def secret_keys(settings: type[Settings]) -> frozenset[str]:
    """Return the agent's keys whose values must not be seen."""
    return frozenset(f.key for f in fields_of(settings) if f.secret)


def read_key(settings: type[Settings], values: Mapping[str, str], key: str) -> Scalar | None:
    """Return what the agent's strings mean for one key, as `flat` gives it: equal where the values are equal.

    A key that is not there counts with its default; None: it is required, and not there.

    Raises:
        SettingsError: The text breaks the key's rule, or the key has several values.
    """
    (item,) = (f for f in fields_of(settings) if f.key == key)
    found = _parsed(item, values)
    return None if found is MISSING else encode(found)


def unknown_keys(settings: type[Settings], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys, sorted, that the class does not declare; the framework's own (`kepm.`) are not among them."""
    known = {f.key.casefold() for f in fields_of(settings)}
    given = (key for key in values if not key.casefold().startswith(RESERVED_SETTING_PREFIX))
    return tuple(sorted(key for key in given if key.casefold() not in known))


def secrets_of(settings: Settings) -> frozenset[str]:
    """Return every text that must not be seen: the secret values, and the strings inside secret collections."""
    secret = (f.texts(getattr(settings, f.name)) for f in fields_of(type(settings)) if f.secret)
    return frozenset[str]().union(*secret)


def _parsed(item: SettingField, values: Mapping[str, str]) -> Any:
    """Return a field's value, its default where there is none; MISSING where there is no default either."""
    spelt = [item.key] if item.key in values else [k for k in values if k.casefold() == item.key.casefold()]
    texts = {values[key] for key in spelt}
    if len(texts) > 1:
        problem = f"{item.key!r} has several values, under {', '.join(sorted(spelt))}"
        raise SettingsError(problem, key=item.key, rule=item.rule)
    if not texts:
        return item.default
    try:
        return item.parsed(*texts)
    except ValueError:
        raise SettingsError(item.complaint(*texts), key=item.key, rule=item.rule) from None


def _raise_for(settings: type[Settings], problems: list[tuple[SettingField, str]]) -> None:
    if not problems:
        return
    text = "; ".join(text for _, text in problems)
    one = problems[0][0] if len(problems) == 1 else None
    raise SettingsError(f"{settings.__name__}: {text}", key=one.key if one else "", rule=one.rule if one else text)


# --- reading a class body ---------------------------------------------------------------------------------------------


def _declared(cls: type[Settings], *, reserved: bool) -> tuple[SettingField, ...]:
    """Turn the class into a dataclass and return its fields; raise PluginDefinitionError for a wrong one."""
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError, SyntaxError) as error:
        remedy = "define what the annotation names at module level, outside `if TYPE_CHECKING`"
        raise PluginDefinitionError(f"{cls.__qualname__}: an annotation cannot be read: {error}; {remedy}") from error
    own = [name for name in inspect.get_annotations(cls) if ClassVar not in (hints[name], get_origin(hints[name]))]
    inherited = {f.name for base in cls.__mro__[1:] if issubclass(base, Settings) for f in fields_of(base)}
    body = dict(vars(cls))
    for name, value in body.items():
        if name in ("__init__", "__post_init__"):
            raise _wrong(cls, name, "is the framework's", "override validate()")
        if name not in own and (isinstance(value, Field) or name in inherited):
            raise _wrong(cls, name, "has no annotation, so it is no setting", f"write `{name}: <type> = ...`")
        if name not in hints and not name.startswith("_") and isinstance(value, _PLAIN):
            remedy = f"write `{name}: {body[name].__class__.__name__} = ...`, or `ClassVar` where it is constant"
            raise _wrong(cls, name, "has no annotation, so it is no setting", remedy)
    for name in own:
        if name.startswith("_") or hasattr(Settings, name):
            raise _wrong(
                cls, name, "is not free as a setting's name", "rename it, and keep the key with setting(key=...)"
            )
        if not isinstance(body.get(name), Field):
            setattr(cls, name, setting(default=body.get(name, MISSING)))
    dataclass(frozen=True, kw_only=True, repr=False)(cls)
    found: dict[str, SettingField] = {}
    for raw in fields(cls):
        item = _field(cls, raw, hints[raw.name])
        _check_key(cls, item, reserved=reserved)
        if (twin := found.setdefault(item.key.casefold(), item)) is not item:
            raise _wrong(
                cls, item.name, f"has the key {item.key!r}, as {twin.name} has", "give one of them another key"
            )
    return tuple(found.values())


def _field(cls: type[Settings], raw: Field[Any], annotation: Any) -> SettingField:
    if _OPTIONS not in raw.metadata:
        raise _wrong(cls, raw.name, "is made by dataclasses.field()", "use setting()")
    options: dict[str, Any] = dict(raw.metadata[_OPTIONS])
    constraints = {name: options[name] for name in LIMITS if options.get(name) is not None}
    try:
        kind = kind_of(annotation)
    except TypeError as error:
        remedy = "use str, bool, int, float, Path, Literal, an Enum, one of them | None, or list, tuple or dict of them"
        raise _wrong(cls, raw.name, f"cannot be {type_text(annotation)} ({error})", remedy) from None
    for name, limit in constraints.items():
        if kind.base not in LIMITS[name].bases:
            raise _wrong(cls, raw.name, f"is {type_text(annotation)}, which takes no {name}", f"leave {name} out")
        try:
            re.compile(str(limit))  # a number is one, too
        except re.error as error:
            raise _wrong(cls, raw.name, f"has a pattern that is no regular expression: {error}", "correct it") from None
    default = options["default"]
    item = SettingField(
        name=raw.name,
        key=raw.name if options.get("key") is None else options["key"],
        type=type_text(annotation),
        secret=options.get("secret", False),
        description=options.get("description", ""),
        constraints=MappingProxyType(constraints),
        kind=kind,
    )
    if default is MISSING:
        return item
    try:
        return replace(item, default=item.checked(default))
    except ValueError:
        shown = "its default" if item.secret else f"its default {default!r}"
        raise _wrong(cls, raw.name, f"must be {item.rule}, and {shown} is not", "correct one of them") from None


def _check_key(cls: type[Settings], item: SettingField, *, reserved: bool) -> None:
    key, ours = item.key, item.key.casefold().startswith(RESERVED_SETTING_PREFIX)
    if key in ("", ".", "..") or not key.isprintable() or set(key) & set(" /?#%\\"):
        reason = "is no part of a path: a key is not empty, and has no space, control character, or one of / ? # % \\"
    elif key.casefold() in REFUSED_KEYS:
        reason = "is a field of the plugin's JSON or a path of the settings API"
    elif ours and not reserved:
        reason = f"begins with {RESERVED_SETTING_PREFIX}, which marks the framework's own"
    elif reserved and not ours:
        reason = f"does not begin with {RESERVED_SETTING_PREFIX}"
    else:
        return
    raise _wrong(cls, item.name, f"has the key {key!r}, which {reason}", "choose another with setting(key=...)")


def _wrong(cls: type[Settings], name: str, problem: str, remedy: str) -> PluginDefinitionError:
    return PluginDefinitionError(f"{cls.__qualname__}.{name} {problem}; {remedy}")
